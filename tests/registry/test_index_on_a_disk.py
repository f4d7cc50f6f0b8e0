"""The index as a file: late, put back, a link, a folder, a pipe, or beside what killed writers left."""

from __future__ import annotations

import os
import shutil
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from signalserve.cli import exits
from signalserve.common.key import Key
from signalserve.registry import Promotion, list_models, verify_log
from signalserve.registry.errors import StorageError
from signalserve.registry.folder_store import FolderStore, open_store
from signalserve.registry.index_file import IndexFile
from signalserve.registry.lock import LOCK_FILE
from signalserve.registry.repair import repair_log
from signalserve.registry.store import Draft, Origin
from tests.cli.test_commands import signalserve
from tests.registries import registry_at
from tests.small_models import register_copy, sealed_template

KEY = Key("BTCUSDT", "15m")


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One and two, promoted in turn."""
    folder = tmp_path_factory.mktemp("disk")
    base, template = folder / "registry", sealed_template(folder / "template")
    for name in ("one", "two"):
        register_copy(template, base, name)
        registry_at(base).promote([Promotion(name)])
    return base


@pytest.fixture
def base(master: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(master, tmp_path / "registry"))


def production(base: Path) -> str | None:
    return open_store(base).view().state.production(KEY)


def promote(base: Path, name: str) -> None:
    registry_at(base).promote([Promotion(name)], force=True, reason="test")


def killed_before_the_index(base: Path, name: str) -> None:
    """Promote in a process that ends between its event and its index."""

    def end(*_: object) -> None:
        os._exit(9)

    child = os.fork()
    if child == 0:
        try:
            IndexFile.put = end  # type: ignore[method-assign]
            promote(base, name)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def here(base: Path) -> Path:
    return base


def copied(base: Path) -> Path:
    """As `cp -rp`, rsync or an archive brings it to another place: all times but the kernel's own are kept."""
    return Path(shutil.copytree(base, base.parent / "elsewhere", copy_function=shutil.copy2))


def without_room(base: Path) -> Path:
    """The disk had no room for the index: a link names its hash."""
    beside = base / ".registry_index.csv.next"
    beside.unlink()
    beside.symlink_to(FolderStore(base).events()[-1].index_sha256[:32])
    return base


@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("then", [here, copied, without_room])
def test_an_index_whose_writer_was_killed_is_late_and_nobody_is_asked(
    base: Path, then: Callable[[Path], Path]
) -> None:
    killed_before_the_index(base, "one")
    base = then(base)
    assert "one,BTCUSDT,15m,logreg" in (base / "registry_index.csv").read_text()
    assert production(base) == "one"
    report = verify_log(base)
    assert report.ok
    assert "the index is late" in report.notes[0]
    promote(base, "two")
    assert verify_log(base).notes == ()
    assert list(base.glob("registry_index.aside-*")) == []
    assert not (base / ".registry_index.csv.next").exists()


def test_an_index_that_is_late_by_several_revisions_on_a_full_disk_is_not_asked_about_but_kept(
    base: Path,
) -> None:
    index = base / "registry_index.csv"
    late = index.read_text()
    promote(base, "one")
    registry_at(base).archive(["one"], allow_unserved=True, reason="idle")
    index.write_text(late)
    (base / ".registry_index.csv.next").symlink_to(FolderStore(base).events()[-1].index_sha256[:32])
    assert (open_store(base).view().asked, production(base)) == ("", None)
    promote(base, "one")
    (kept,) = base.glob("registry_index.aside-*")
    assert kept.read_text() == late
    assert verify_log(base).ok


@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_an_old_copy_that_is_saved_over_a_late_index_is_asked_about_and_kept_aside(
    master: Path, base: Path
) -> None:
    index = base / "registry_index.csv"
    old = index.read_text()
    register_copy(master.parent / "template", base, "three")
    killed_before_the_index(base, "one")
    index.write_text(old)
    assert "statuses of revision 4, as an old copy has" in open_store(base).view().asked
    assert production(base) == "one"
    promote(base, "three")
    (kept,) = base.glob("registry_index.aside-*")
    assert kept.read_text() == old
    assert not (base / ".registry_index.csv.next").exists()


def test_a_folder_in_the_way_of_the_next_index_is_moved_aside(base: Path) -> None:
    (base / ".registry_index.csv.next" / "within").mkdir(parents=True)
    promote(base, "one")
    assert verify_log(base).notes == ()
    (moved,) = base.glob("registry_index.unread-*")
    assert (moved / "within").is_dir()


def test_a_missing_index_is_projected_again(base: Path) -> None:
    (base / "registry_index.csv").unlink()
    assert {entry.model_id for entry in list_models(base)} == {"one", "two"}
    promote(base, "one")
    assert verify_log(base).notes == ()


@pytest.mark.parametrize("then", [here, copied])
def test_the_index_of_the_revision_before_that_is_put_back_with_its_old_time_is_asked_about(
    base: Path, then: Callable[[Path], Path], tmp_path: Path
) -> None:
    index = base / "registry_index.csv"
    shutil.copy2(index, tmp_path / "saved.csv")
    promote(base, "one")
    shutil.copy2(tmp_path / "saved.csv", index)
    base = then(base)
    assert production(base) == "one"
    assert "as an old copy has" in open_store(base).view().asked
    told = signalserve("registry", "verify-log", "--registry", str(base), code=exits.FAILED)
    assert "the index is not followed" in told
    promote(base, "one")
    (kept,) = base.glob("registry_index.aside-*")
    assert kept.read_bytes() == (tmp_path / "saved.csv").read_bytes()


def test_an_edit_that_keeps_size_and_time_is_seen(base: Path) -> None:
    index, store = base / "registry_index.csv", FolderStore(base)
    while store.view() is not store.view():  # until a reader keeps what it read
        continue
    status = index.stat()
    index.write_text(index.read_text().replace("2026-01-01", "2026-01-03"))
    os.utime(index, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert {entry.created_at[:10] for entry in store.view().state.entries.values()} == {"2026-01-03"}


def test_no_reader_beside_a_busy_writer_takes_the_index_for_an_old_copy(base: Path) -> None:
    over = threading.Event()

    def write() -> None:
        for name in ["one", "two"] * 30:
            promote(base, name)
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    reader = FolderStore(base)
    seen = set()
    while not over.is_set():
        seen.add(reader.view().asked)
    writer.join()
    assert seen == {""}


def a_folder(index: Path) -> None:
    (index / "in it").mkdir(parents=True)


def a_pipe(index: Path) -> None:
    os.mkfifo(index)


def a_swollen_file(index: Path) -> None:
    index.touch()
    os.truncate(index, 70 << 20)


def a_link_to_itself(index: Path) -> None:
    index.symlink_to(index)


@pytest.mark.parametrize("put", [a_folder, a_pipe, a_swollen_file, a_link_to_itself])
def test_what_is_no_index_is_asked_about_and_moved_aside_by_the_next_writer(
    base: Path, put: Callable[[Path], None]
) -> None:
    index, at = base / "registry_index.csv", ("--registry", str(base))
    index.unlink()
    put(index)
    view = open_store(base).view()
    assert (view.state.production(KEY), view.asked[:18]) == ("two", "it can't be read: ")
    assert {entry.model_id for entry in list_models(base)} == {"one", "two"}
    assert "it can't be read" in signalserve("registry", "verify-log", *at, code=exits.FAILED)
    promote(base, "one")
    assert production(base) == "one"
    assert index.is_file()
    assert verify_log(base).ok
    (moved,) = base.glob("registry_index.unread-*")
    assert moved.is_dir() == (put is a_folder)


def a_promote(base: Path) -> None:
    promote(base, "one")


def a_repair(base: Path) -> None:
    log = base / "registry_events.jsonl"
    log.write_bytes(log.read_bytes() + b"no event\n")
    assert repair_log(base).needed


@pytest.mark.parametrize("change", [a_promote, a_repair])
def test_a_link_mode_and_group_stay_as_they_are(base: Path, change: Callable[[Path], None]) -> None:
    index, real = base / "registry_index.csv", base.parent / "shared" / "index.csv"
    real.parent.mkdir()
    index.rename(real)
    index.symlink_to(real)
    real.chmod(0o664)
    group = 1 if os.getuid() == 0 else os.getgid()
    os.chown(real, -1, group)
    change(base)
    assert index.is_symlink()
    status = real.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o664, group)
    assert verify_log(base).notes == ()
    assert [path.name for path in real.parent.iterdir()] == ["index.csv"]


def test_what_killed_writers_left_goes_and_what_is_not_theirs_stays(base: Path) -> None:
    left = [
        ".registry_index.csv.17.tmp",
        ".registry_checkpoint.jsonl.17.tmp",
        ".registry_index.aside-0123456789ab.csv.17.tmp",
    ]
    others = [".registry_index.csv.17.tmp~", ".registry_index.csv.x.tmp", "registry_index.csv.17.tmp"]
    for name in (*left, *others, ".registry_index.csv.18.tmp", ".registry_index.csv.next"):
        (base / name).write_text("half")
    for name in (*left, *others):
        os.utime(base / name, (0, 0))
    with FolderStore(base).transaction(Origin()):
        pass
    there = {path.name for path in base.iterdir()}
    # the one that is new may be at work on a disk without locks
    assert there & {*left, ".registry_index.csv.next"} == set()
    assert {*others, ".registry_index.csv.18.tmp"} <= there


def test_a_writer_whose_lock_file_is_removed_commits_nothing(base: Path) -> None:
    revision = len(FolderStore(base).events())
    with (
        pytest.raises(StorageError, match="was removed while this change was being made"),
        FolderStore(base).transaction(Origin()) as turn,
    ):
        (base / LOCK_FILE).unlink()
        with FolderStore(base).transaction(Origin()) as other:
            turn.commit(Draft("note"))
            other.commit(Draft("note"))
    assert len(FolderStore(base).events()) == revision
    promote(base, "one")
    assert verify_log(base).ok
