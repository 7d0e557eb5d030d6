"""What is written under `whole` is there whole or not at all."""

import pytest

from xray.whole import whole


def test_a_file_takes_the_place_of_the_one_before_when_it_is_done(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("before")
    with whole(path) as partial:
        partial.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_was_there_stays_whatever_ends_the_writing(error, tmp_path):
    path = tmp_path / "report.json"
    path.write_text("before")
    with pytest.raises(error), whole(path) as partial:
        partial.write_text("half")
        raise error
    assert path.read_text() == "before"
    assert [path] == list(tmp_path.iterdir())


def test_a_folder_comes_with_all_that_is_in_it_or_not_at_all(tmp_path):
    folder = tmp_path / "trace.zarr"
    with pytest.raises(KeyboardInterrupt), whole(folder) as partial:
        partial.mkdir()
        (partial / "half").touch()
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    with whole(folder) as partial:
        partial.mkdir()
        (partial / "zarr.json").touch()
    assert [folder / "zarr.json"] == list(folder.iterdir())


def test_a_folder_that_is_there_is_not_replaced(tmp_path):
    folder = tmp_path / "trace.zarr"
    folder.mkdir()
    (folder / "zarr.json").write_text("another's")
    with pytest.raises(OSError), whole(folder) as partial:
        partial.mkdir()
        (partial / "zarr.json").touch()
    assert (folder / "zarr.json").read_text() == "another's"
    assert [folder] == list(tmp_path.iterdir())


def test_it_is_moved_where_it_was_meant_although_the_folder_of_work_changes(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    with whole("here.txt") as partial:
        monkeypatch.chdir(tmp_path / "other")
        partial.write_text("")
    assert (tmp_path / "here.txt").exists()
