"""Outputs touch nothing that is read, and replace nothing that a command did not make."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sie_jax.errors import UserError
from sie_jax.outputs import Outputs, apart


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outputs:
    """In an empty current folder, with relative paths."""
    monkeypatch.chdir(tmp_path)
    return Outputs(Path("out.csv"), (Path("out.rejected.parquet"),), scratch=(Path("out.parts"),))


def leave(outputs: Outputs, *texts: str) -> None:
    """One call of a command, which leaves so many of the files."""
    outputs.check([])
    with outputs.whole() as paths:
        for path, text in zip(paths, texts, strict=False):
            path.write_text(text)


def as_it_is(name: str) -> str:
    return name


def spelled_otherwise(name: str) -> str:
    Path("folder").mkdir()
    return f"folder/../{name}"


def absolute(name: str) -> str:
    return str(Path(name).absolute())


def linked(name: str) -> str:
    Path("link").symlink_to(name)
    return "link"


def linked_hard(name: str) -> str:
    Path("hard").hardlink_to(name)
    return "hard"


def through_a_linked_folder(name: str) -> str:
    Path("folder").symlink_to(".")
    return f"folder/{name}"


def in_a_folder_that_is_read(name: str) -> str:
    return "."


def linked_from_a_folder_that_is_read(name: str) -> str:
    Path("parts").mkdir()
    Path("parts", "a.csv").symlink_to(Path(name).absolute())
    return "parts"


SPELLINGS: tuple[Callable[[str], str], ...] = (
    as_it_is,
    spelled_otherwise,
    absolute,
    linked,
    linked_hard,
    through_a_linked_folder,
    in_a_folder_that_is_read,
    linked_from_a_folder_that_is_read,
)


@pytest.mark.parametrize("name", ["out.csv", "out.rejected.parquet", ".out.csv.made.json"])
@pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda one: one.__name__)
def test_what_is_read_is_not_written(
    outputs: Outputs, name: str, spelling: Callable[[str], str]
) -> None:
    """Also where the command made it: then it is its own, and still its input."""
    leave(outputs, "scores", "rejected")
    read = spelling(name)
    with pytest.raises(UserError, match=r"cannot be written, because .* is read: give another"):
        outputs.check([read])
    assert Path("out.csv").read_text() == "scores"


@pytest.mark.parametrize("name", [".out.csv.tmp", "out.parts/part-000000.parquet"])
def test_what_is_only_there_while_a_command_works_is_no_input_either(
    outputs: Outputs, name: str
) -> None:
    Path("out.parts").mkdir()
    Path(name).write_text("rows")
    with pytest.raises(UserError, match=f"because {name} is read"):
        outputs.check([name])


def test_paths_of_stores_are_compared_as_texts() -> None:
    with pytest.raises(UserError, match="gs://b/run/model cannot be written"):
        apart(["gs://b/run/model"], ["gs://b/run/model/"], fix="")
    apart(["gs://b/run/model"], ["gs://b/run/data", "s3://b/run/model", "b/run/model"], fix="")


@pytest.mark.parametrize("name", ["out.csv", "out.rejected.parquet"])
def test_a_file_of_somebody_else_stays(outputs: Outputs, name: str) -> None:
    Path(name).write_text("mine")
    with pytest.raises(UserError, match=f"^{name} is there and is not what this command left"):
        outputs.check([])
    Path(name).unlink()
    leave(outputs, "scores", "rejected")
    Path(name).write_text("mine")  # in the place of what was left, or edited
    with pytest.raises(UserError, match=f"^{name} is there and is not what this command left"):
        outputs.check([])
    assert Path(name).read_text() == "mine"


@pytest.mark.parametrize("record", ["", "{", "[]", '{"out.csv": 1}', "[" * 100_000])
def test_without_its_record_a_file_is_nobodys(outputs: Outputs, record: str) -> None:
    leave(outputs, "scores")
    Path(".out.csv.made.json").write_text(record)
    with pytest.raises(UserError, match="is not what this command left"):
        outputs.check([])


def test_its_own_files_are_replaced_and_what_is_left_out_is_gone(outputs: Outputs) -> None:
    leave(outputs, "scores", "rejected")
    leave(outputs, "others")
    assert Path("out.csv").read_text() == "others"
    assert sorted(os.listdir()) == [".out.csv.made.json", "out.csv"]


def test_a_file_made_while_the_command_worked_stays(outputs: Outputs) -> None:
    outputs.check([])

    def work() -> None:
        with outputs.whole() as (main, _):
            main.write_text("scores")
            Path("out.csv").write_text("mine")

    with pytest.raises(UserError, match="is not what this command left"):
        work()
    assert Path("out.csv").read_text() == "mine"
    assert os.listdir() == ["out.csv"]


@pytest.mark.parametrize("at", range(3))
def test_killed_between_its_steps_it_knows_its_files(
    outputs: Outputs, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """The record, the second file and the first take their places one after the other."""
    leave(outputs, "old", "old too")
    calls, real = [0], os.replace

    def replace(*given: Path) -> None:
        if calls[0] == at:
            raise KeyboardInterrupt
        calls[0] += 1
        real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            leave(outputs, "new", "new too")
    assert Path("out.csv").read_text() == "old"
    Path(".out.csv.tmp").symlink_to("elsewhere")  # as a killed process might leave it
    leave(outputs, "new", "new too")
    assert Path("out.csv").read_text() == "new"
    assert not Path("elsewhere").exists()


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("folder", "is a folder"),
        ("dangling", "is a link"),
        ("loop", "is a link"),
        ("pipe", "is no file"),
        ("/dev/null", "is no file"),
        ("file/out.csv", "a file stands where its folder would be"),
        ("file/deep/out.csv", "a file stands where its folder would be"),
        ("/proc/out.csv", "No such file"),
        ("/proc/new/out.csv", "No such file"),
        ("x" * 300, "File name too long"),
        ("x" * 250, "File name too long"),  # with what is put around it for a while
        (f"{'y' * 300}/out.csv", "File name too long"),
        ("out\udcff.csv", "is not UTF-8"),
    ],
)
def test_where_no_file_can_be_it_is_said_before_any_work(
    outputs: Outputs, place: str, said: str
) -> None:
    Path("folder").mkdir()
    Path("dangling").symlink_to("nowhere")
    Path("loop").symlink_to("loop")
    Path("file").write_text("mine")
    os.mkfifo("pipe")
    before = sorted(os.listdir())
    with pytest.raises(UserError, match=said):
        Outputs(Path(place)).check([])
    assert sorted(os.listdir()) == before


def test_folders_are_made_by_the_work_and_not_by_the_check(outputs: Outputs) -> None:
    deep = Outputs(Path("new/deep/out.csv"))
    deep.check([])
    assert os.listdir() == []
    with deep.whole() as (main,):
        main.write_text("scores")
    assert Path("new/deep/out.csv").read_text() == "scores"
