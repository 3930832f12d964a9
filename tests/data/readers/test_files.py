"""Where the files of an official layout lie, and what is said where they are missing."""

from pathlib import Path

import pytest

from sie_jax.data.readers import files
from sie_jax.errors import UserError


def told(path: object) -> str:
    with pytest.raises(UserError) as caught:
        files.official("shop", str(path), ("a.csv", "b.csv"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_come_in_the_order_of_the_names(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv", "other"):
        (tmp_path / name).touch()
    found = files.official("shop", str(tmp_path), ("b.csv", "a.csv"))
    assert [Path(file) for file in found] == [tmp_path / "b.csv", tmp_path / "a.csv"]


def test_a_file_of_a_layout_may_be_compressed(tmp_path: Path) -> None:
    for name in ("a.csv.gz", "b.csv.zst"):
        (tmp_path / name).touch()
    found = files.official("shop", str(tmp_path), ("a.csv", "b.csv"))
    assert [file.name for file in found] == ["a.csv.gz", "b.csv.zst"]


def test_what_is_missing_is_named_with_the_fix(tmp_path: Path) -> None:
    fix = "give the folder that holds a.csv, b.csv"
    assert told("") == f"shop: '' does not exist: {fix}"
    assert told(tmp_path / "no") == f"shop: {str(tmp_path / 'no')!r} does not exist: {fix}"
    assert told(tmp_path) == f"shop: a.csv is missing; {tmp_path} holds nothing: {fix}"
    (tmp_path / "a.csv").touch()
    assert told(tmp_path) == f"shop: b.csv is missing; {tmp_path} holds a.csv: {fix}"
    assert told(tmp_path / "a.csv") == f"shop: {tmp_path / 'a.csv'} is not a folder: {fix}"


def test_a_full_folder_is_not_listed_whole(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"part-{number:02}").touch()
    assert "part-08, part-09, ...: give" in told(tmp_path)
