import json
from pathlib import Path

import pytest

from sie_jax import files


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
