import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sie_jax import files
from sie_jax.errors import UserError


def test_json_round_trip_makes_the_folder(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None], "title": "Bücher, 靴"}
    path = tmp_path / "new" / "folder" / "value.json"
    files.write_json(path, value)
    assert files.read_json(path) == value
    assert [one.name for one in path.parent.iterdir()] == ["value.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_has_no_nan_and_the_old_file_stays(tmp_path: Path, value: float) -> None:
    path = tmp_path / "value.json"
    files.write_json(path, 1)
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(path, {"loss": value})
    assert files.read_json(path) == 1


def test_whole_leaves_nothing_of_a_write_that_fails(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write() -> None:
        with files.whole(path) as temporary:
            temporary.write_text("half a fi")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_whole_folder_appears_at_once_and_starts_empty(tmp_path: Path) -> None:
    path = tmp_path / "data"
    killed = tmp_path / ".data.tmp"
    killed.mkdir()
    (killed / "of a killed process").touch()
    with files.whole_folder(path) as temporary:
        assert list(temporary.iterdir()) == []
        (temporary / "part.json").write_text(json.dumps(1))
        assert not path.exists()
    assert [one.name for one in path.iterdir()] == ["part.json"]
    assert list(tmp_path.iterdir()) == [path]


def test_whole_folder_leaves_nothing_where_the_block_raises(tmp_path: Path) -> None:
    def write() -> None:
        with files.whole_folder(tmp_path / "data") as temporary:
            (temporary / "part").touch()
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_whole_does_not_write_through_a_link_in_its_way(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".out.tmp").symlink_to(tmp_path / "mine")
    with files.whole(tmp_path / "out") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "out").read_text() == "new"


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a":' * 100_000, "nothing"])
def test_what_is_no_json_is_a_value_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "value.json").write_text(text)
    with pytest.raises(ValueError, match=r"Expecting|nested"):
        files.read_json(tmp_path / "value.json")


def test_names_that_are_not_utf8_come_back(tmp_path: Path) -> None:
    files.write_json(tmp_path / "value.json", {"a\udcff": "é"})
    assert files.read_json(tmp_path / "value.json") == {"a\udcff": "é"}


def test_digests_are_of_every_file_below_whatever_its_times(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.csv", "deep/a.csv", ".hidden", "_SUCCESS"):
        (tmp_path / name).write_text("row")
    (tmp_path / "c.csv").symlink_to("b.csv")
    before = files.digests(tmp_path)
    assert list(before) == ["b.csv", "c.csv", "deep/a.csv"]
    assert files.digests(tmp_path / "b.csv") == {"b.csv": before["b.csv"]}
    stat = (tmp_path / "b.csv").stat()
    (tmp_path / "b.csv").write_text("rot")  # as many bytes, and the same times
    os.utime(tmp_path / "b.csv", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = files.digests(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {"b.csv", "c.csv"}
    assert files.digests(tmp_path / "none") == {}


def test_what_would_be_waited_for_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path / "pipe.csv", tmp_path, Path("/dev/zero")):
        with pytest.raises(UserError, match="is a named pipe or a device: give a file"):
            files.digests(path)
    (tmp_path / "pipe.csv").unlink()
    (tmp_path / "link.csv").symlink_to("nowhere")
    with pytest.raises(UserError, match="is a link that leads nowhere"):
        files.digests(tmp_path)


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
def test_json_is_read_of_files_alone(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "value.json")
    with pytest.raises(ValueError, match="a folder, a named pipe or a device"):
        files.read_json(tmp_path / "value.json")
