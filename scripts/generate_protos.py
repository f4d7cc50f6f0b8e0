"""Generate `signalserve/v1` from `protos/`; with --check, only say whether the committed stubs are current."""

from __future__ import annotations

import argparse
import filecmp
import os
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from google.rpc import status_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
PACKAGE = Path("signalserve/v1")


def _include_dirs() -> list[str]:
    well_known = files("grpc_tools") / "_proto"
    # googleapis-common-protos keeps google/rpc/*.proto beside their Python modules
    common = Path(status_pb2.__file__).parent.parent.parent
    return [f"-I{PROTOS}", f"-I{well_known}", f"-I{common}"]


def generate(target: Path) -> None:
    """Write the stubs for every .proto below `protos/` into `target`."""
    # protoc looks its plugins up on the PATH; ours are beside this interpreter
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    sources = [str(path.relative_to(PROTOS)) for path in sorted(PROTOS.rglob("*.proto"))]
    status = protoc.main(
        [
            "protoc",
            *_include_dirs(),
            f"--python_out={target}",
            f"--grpc_python_out={target}",
            f"--mypy_out=quiet:{target}",
            f"--mypy_grpc_out=quiet:{target}",
            *sources,
        ]
    )
    if status != 0:
        raise SystemExit(status)
    _drop_empty_grpc_stubs(target)
    _import_our_status(target)


def _import_our_status(target: Path) -> None:
    """Let the stubs take google.rpc.Status from where it is there also without googleapis-common-protos."""
    for stub in (target / PACKAGE).glob("*_pb2.py*"):
        text = stub.read_text(encoding="utf-8")
        ours = text.replace(
            "from google.rpc import status_pb2 as", "from signalserve.v1 import rpc_status as"
        )
        if ours != text:
            stub.write_text(ours, encoding="utf-8")


def _drop_empty_grpc_stubs(target: Path) -> None:
    """Remove the *_pb2_grpc files of sources that define no service."""
    for proto in PROTOS.rglob("*.proto"):
        if "\nservice " not in proto.read_text(encoding="utf-8"):
            stem = target / proto.relative_to(PROTOS).with_suffix("")
            for suffix in ("_pb2_grpc.py", "_pb2_grpc.pyi"):
                stem.with_name(stem.name + suffix).unlink(missing_ok=True)


def write_image(target: Path) -> None:
    """Write a descriptor set of the sources and what they import, for `buf lint`."""
    sources = [str(path.relative_to(PROTOS)) for path in sorted(PROTOS.rglob("*.proto"))]
    status = protoc.main(
        [
            "protoc",
            *_include_dirs(),
            "--include_imports",
            "--include_source_info",
            f"--descriptor_set_out={target}",
            *sources,
        ]
    )
    if status != 0:
        raise SystemExit(status)


def drift(committed: Path, fresh: Path) -> list[str]:
    """Names of stubs that differ between two folders, or are in one alone."""
    names = {path.name for folder in (committed, fresh) for path in folder.glob("*_pb2*.py*")}
    return sorted(
        name
        for name in names
        if not (committed / name).is_file()
        or not (fresh / name).is_file()
        or not filecmp.cmp(committed / name, fresh / name, shallow=False)
    )


def main() -> int:
    """Run the command line; the exit code is 1 where the stubs have drifted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing, exit 1 on drift")
    parser.add_argument("--image", type=Path, help="write a descriptor set to this file instead")
    arguments = parser.parse_args()
    if arguments.image is not None:
        write_image(arguments.image)
        return 0
    if not arguments.check:
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        changed = drift(ROOT / PACKAGE, Path(folder) / PACKAGE)
    if changed:
        print("stubs differ from protos/: " + ", ".join(changed) + "; run `make protos`")
        return 1
    print("stubs equal what protos/ generates")
    return 0


if __name__ == "__main__":
    sys.exit(main())
