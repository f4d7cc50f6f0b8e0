"""The files of a run directory as one look finds them: each is read at most once while the object lives.

1. A digest that was taken stays: what is built later must be built from bytes of that digest.
2. The small files that several questions ask of (manifest.json, meta.json) keep their bytes; a model's don't.
3. An object of this class is for one operation. A later one looks anew.
4. What is larger than its like can be (`LARGEST`) is refused by its size: nothing of it is held, or hashed.
"""

from __future__ import annotations

from pathlib import Path

from signalserve.common.files import file_sha256, is_folder, read_regular, sha256_hex
from signalserve.predictors.errors import IntegrityError

MANIFEST_FILE = "manifest.json"
META_FILE = "meta.json"
_KEPT = frozenset({MANIFEST_FILE, META_FILE})
_MIB = 1 << 20
LARGEST_META = 16 * _MIB
# 256 rows of 30,000 columns; also what it unpacks to
LARGEST_GOLDEN = 64 * _MIB
LARGEST = {
    MANIFEST_FILE: 16 * _MIB,
    META_FILE: LARGEST_META,
    "golden.npz": LARGEST_GOLDEN,
    "model.onnx": 2048 * _MIB - 1,  # no ONNX file can have more: it is one protobuf message
    "feature_importances.csv": 16 * _MIB,
}
_HASHED_FIRST = 64 * _MIB


class Contents:
    """One folder's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._digests: dict[str, str] = {}
        self._kept: dict[str, bytes] = {}

    @classmethod
    def of(cls, folder: Path | Contents) -> Contents:
        """A folder that nobody has looked into yet, or a look that goes on."""
        return folder if isinstance(folder, Contents) else cls(folder)

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return is_folder(self.folder) and (self.folder / name).is_file()

    def is_large(self, name: str) -> bool:
        """Whether a file is hashed in parts before it is held: one that is not the right one may be of any size."""
        try:
            return (self.folder / name).stat().st_size > _HASHED_FIRST
        except OSError:
            return False  # reading it says why

    def read(self, name: str) -> bytes:
        """A file's bytes.

        Raises:
            IntegrityError: it can't be read, or is too large.
        """
        if (kept := self._kept.get(name)) is not None:
            return kept
        try:
            content = read_regular(self.folder / name, largest=LARGEST.get(name))
        except OSError as error:
            raise IntegrityError(f"{self.folder / name}: {error.strerror or error}") from error
        self._digests[name] = sha256_hex(content)
        if name in _KEPT:
            self._kept[name] = content
        return content

    def sha256(self, name: str) -> str:
        """A file's digest, lower-case hex; a file that was not read yet is read in parts.

        Raises:
            IntegrityError: it can't be read, or is too large.
        """
        found = self._digests.get(name)
        if found is None:
            try:
                found = self._digests[name] = file_sha256(self.folder / name, largest=LARGEST.get(name))
            except OSError as error:
                raise IntegrityError(f"{self.folder / name}: {error.strerror or error}") from error
        return found
