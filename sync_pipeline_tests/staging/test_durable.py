"""Files that are whole or not there, whatever ends the process that writes them."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import signal
import stat
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync_pipeline.domain.errors import DiskFull
from sync_pipeline.staging.durable import (
    PASSING,
    PIECE_BYTES,
    Disk,
    checksum,
    is_full,
    passing_name,
    private_folder,
    room_for,
)

SPAWN = multiprocessing.get_context("spawn")
OLD = b"what was there before"


class Noting(Disk):
    """A disk that notes each call that decides what survives, and may do something in front of one."""

    def __init__(self, *, kill_before: str = "") -> None:
        self.noted: list[str] = []
        self._kill_before = kill_before

    def sync_file(self, path: Path) -> None:
        self._note(f"sync {path.name}")
        super().sync_file(path)

    def rename(self, old: Path, new: Path) -> None:
        self._note(f"rename {old.name} to {new.name}")
        super().rename(old, new)

    def _note(self, call: str) -> None:
        if self._kill_before and call.startswith(self._kill_before):
            os.kill(os.getpid(), signal.SIGKILL)
        self.noted.append(call)


def write_and_die(file: Path, kill_before: str) -> None:
    Noting(kill_before=kill_before).write(file, b"new")


def write_beyond_the_limit(file: Path) -> None:
    """Writes more than this process may: exit code 0 when that is refused."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        Disk().write(file, b"x" * 1000)


def make_folders(start: threading.Barrier, folder: Path) -> None:
    start.wait()
    for number in range(100):
        private_folder(folder / str(number) / "range" / "1")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


# Writing


def test_a_file_is_written_under_a_passing_name_synced_and_then_renamed(tmp_path: Path) -> None:
    disk = Noting()

    disk.write(tmp_path / "page.parquet", b"rows")

    assert disk.noted == ["sync page.parquet.tmp", "rename page.parquet.tmp to page.parquet"]
    assert (tmp_path / "page.parquet").read_bytes() == b"rows"
    assert [path.name for path in tmp_path.iterdir()] == ["page.parquet"]


@settings(max_examples=30)
@given(content=st.binary(max_size=3000), before=st.none() | st.binary(max_size=3000))
def test_a_file_holds_what_was_written_last_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, before: bytes | None
) -> None:
    file = tmp_path_factory.mktemp("disk") / "file"
    if before is not None:
        file.write_bytes(before)
        passing_name(file).write_bytes(before)  # left over from a writer that died

    Disk().write(file, memoryview(content))

    assert file.read_bytes() == content
    assert [path.name for path in file.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_a_file_belongs_to_the_user_alone(tmp_path: Path, mask: int) -> None:
    with umask(mask):
        Disk().write(tmp_path / "file", b"secret")

    assert mode(tmp_path / "file") == 0o600


@pytest.mark.parametrize("kill_before", ["sync", "rename"])
def test_a_writer_that_is_killed_before_the_rename_leaves_the_old_file(tmp_path: Path, kill_before: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(OLD)

    writer = SPAWN.Process(target=write_and_die, args=(file, kill_before), daemon=True)
    writer.start()
    writer.join()

    assert writer.exitcode == -signal.SIGKILL
    assert file.read_bytes() == OLD
    assert {path.name for path in tmp_path.iterdir()} == {"file", f"file{PASSING}"}


def test_a_write_that_does_not_fit_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(OLD)

    writer = SPAWN.Process(target=write_beyond_the_limit, args=(file,), daemon=True)
    writer.start()
    writer.join()

    assert writer.exitcode == 0
    assert file.read_bytes() == OLD


def test_a_full_disk_keeps_the_old_file_and_nothing_of_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "page.parquet"
    file.write_bytes(OLD)
    passing_name(file).symlink_to("/dev/full")  # every write to it finds no room

    with pytest.raises(DiskFull, match=r"no room for .*page\.parquet\.tmp, which needs 7 bytes") as told:
        Disk().write(file, b"7 bytes")

    assert "Make room" in told.value.hint
    assert file.read_bytes() == OLD
    assert [path.name for path in tmp_path.iterdir()] == ["page.parquet"]


def test_another_trouble_of_the_disk_is_not_taken_for_a_full_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Disk().write(tmp_path / "gone" / "file", b"rows")


@pytest.mark.parametrize(
    ("number", "means_full"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False), (errno.EACCES, False)]
)
def test_no_room_is_told_apart_from_any_other_error(number: int, means_full: bool) -> None:
    assert is_full(OSError(number, os.strerror(number))) is means_full


def test_what_a_full_disk_cut_short_is_removed_and_told_with_what_it_needs(tmp_path: Path) -> None:
    file = tmp_path / "part-00001.csv"
    file.write_bytes(b"the first half")

    with pytest.raises(DiskFull, match=r"needs 5000 bytes"), room_for(file, 5000):
        Path("/dev/full").write_bytes(b"the second half")

    assert not file.exists()


def test_removing_a_file_that_is_gone_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)

    Disk().remove(tmp_path / "file")
    Disk().remove(tmp_path / "file")

    assert list(tmp_path.iterdir()) == []


def test_renaming_takes_the_place_of_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"new rows")
    (tmp_path / "file").write_bytes(OLD)

    Disk().rename(tmp_path / "old", tmp_path / "file")

    assert (tmp_path / "file").read_bytes() == b"new rows"
    assert not (tmp_path / "old").exists()


def test_files_and_folders_can_be_synced_and_a_missing_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)

    Disk().sync_file(tmp_path / "file")
    Disk().sync_folder(tmp_path)

    with pytest.raises(FileNotFoundError):
        Disk().sync_file(tmp_path / "gone")


# Folders


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_every_folder_that_is_made_belongs_to_the_user_alone(tmp_path: Path, mask: int) -> None:
    with umask(mask):
        private_folder(tmp_path / "home" / "nights" / "one")

    assert [mode(tmp_path / name) for name in ("home", "home/nights", "home/nights/one")] == [0o700] * 3


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    (folder / "file").write_bytes(OLD)

    private_folder(folder)

    assert mode(folder) == 0o755
    assert (folder / "file").read_bytes() == OLD


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "home").write_bytes(OLD)

    with pytest.raises(OSError, match="home"):
        private_folder(tmp_path / "home" / "nights")


def test_processes_may_make_the_same_folders_at_once(tmp_path: Path) -> None:
    start = SPAWN.Barrier(3)
    makers = [SPAWN.Process(target=make_folders, args=(start, tmp_path / "home"), daemon=True) for _ in range(3)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()

    assert [maker.exitcode for maker in makers] == [0, 0, 0]
    assert mode(tmp_path / "home" / "99" / "range" / "1") == 0o700


# Checksums


@settings(max_examples=30)
@given(content=st.binary(max_size=3000))
def test_a_checksum_is_the_size_and_crc32_of_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.mktemp("disk") / "file"
    file.write_bytes(content)

    assert checksum(file) == (len(content), zlib.crc32(content))


@pytest.mark.parametrize("size", [PIECE_BYTES - 1, PIECE_BYTES, 2 * PIECE_BYTES + 1])
def test_a_checksum_counts_every_piece_of_a_large_file(tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    (tmp_path / "file").write_bytes(content)

    assert checksum(tmp_path / "file") == (size, zlib.crc32(content))


def test_a_file_that_is_gone_has_no_checksum(tmp_path: Path) -> None:
    assert checksum(tmp_path / "gone") is None


def test_a_passing_name_stands_beside_the_name_it_will_have(tmp_path: Path) -> None:
    assert passing_name(tmp_path / "page-000001.parquet") == tmp_path / "page-000001.parquet.tmp"
