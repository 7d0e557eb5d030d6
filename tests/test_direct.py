"""Files written past the page cache: the same bytes, whatever the file system can do."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from xray import direct

needs_direct = pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="Linux's direct I/O")


def content(size: int) -> bytes:
    return np.random.default_rng(size).bytes(size)


def opening(refused: int, error: int):
    """`os.open` of a file system that refuses these flags with this error."""
    real = os.open

    def opened(path, flags, *more):
        if flags & refused:
            raise OSError(error, os.strerror(error))
        return real(path, flags, *more)

    return opened


SIZES = [
    0,
    1,
    direct.LARGE - 1,
    direct.LARGE,
    direct.LARGE + 1,
    2 * direct.PIECE,
    2 * direct.PIECE + 4097,
]


@pytest.mark.parametrize("size", SIZES)
def test_what_is_written_is_read(tmp_path, size):
    direct.write(tmp_path / "file", content(size))
    assert (tmp_path / "file").read_bytes() == content(size)


def test_numbers_of_any_width_are_their_bytes(tmp_path):
    array = np.random.default_rng(0).standard_normal(direct.LARGE)
    direct.write(tmp_path / "file", array)
    np.testing.assert_array_equal(np.fromfile(tmp_path / "file"), array)


def test_a_file_that_was_longer_is_replaced(tmp_path):
    (tmp_path / "file").write_bytes(content(2 * direct.LARGE))
    direct.write(tmp_path / "file", content(direct.LARGE + 5))
    assert (tmp_path / "file").read_bytes() == content(direct.LARGE + 5)


@needs_direct
def test_a_large_file_is_not_in_the_page_cache_and_a_small_one_is(tmp_path):
    try:
        os.close(os.open(tmp_path / "probe", os.O_CREAT | os.O_WRONLY | os.O_DIRECT))
    except OSError as error:
        pytest.skip(f"this file system has no direct I/O: {error}")

    def in_cache(size: int) -> bool:
        direct.write(tmp_path / "file", content(size))
        file = os.open(tmp_path / "file", os.O_RDONLY)
        try:
            return os.preadv(file, [bytearray(4096)], 0, os.RWF_NOWAIT) > 0
        except BlockingIOError:
            return False
        finally:
            os.close(file)

    assert in_cache(direct.LARGE - 1)
    assert not in_cache(direct.LARGE)


@needs_direct
def test_a_file_system_without_it_gets_the_same_file(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "open", opening(os.O_DIRECT, errno.EINVAL))
    direct.write(tmp_path / "file", content(3 * direct.LARGE))
    assert (tmp_path / "file").read_bytes() == content(3 * direct.LARGE)


@needs_direct
def test_a_full_disk_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "open", opening(os.O_DIRECT, errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        direct.write(tmp_path / "file", content(direct.LARGE))
