"""A stage is made once, and again only where its table says so."""

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sie_jax.devices import mesh as meshes
from sie_jax.errors import UserError
from sie_jax.sections import TELLS
from sie_jax.training.section import TrainConfig
from sie_jax.training.tracking import TrackingConfig
from sie_jax.workdir import Job, Made, Workdir, stage
from sie_jax.workdir.job import FOLDERS

MADE: list[str] = []


@dataclasses.dataclass
class Shape:
    """A section: one field counts, the other only tells."""

    size: int = 3
    log_every: int = dataclasses.field(default=20, metadata=TELLS)


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A result with a setting, as stages bundle them."""

    numbers: Made[list[int]]
    offset: int


def read_numbers(made: Made[list[int]]) -> list[int]:
    values: list[int] = json.loads((made.folder / "numbers.json").read_text())
    return values


@stage(leaves=("numbers.json", "parts"), read=read_numbers)
def numbers(job: Job, *, shape: Shape, twice: bool = False) -> None:
    MADE.append("numbers")
    parts = job.folder / "parts"
    parts.mkdir()
    for i in range(shape.size):
        (parts / f"{i}.txt").write_text("#" * i)
    values = list(range(shape.size)) * (2 if twice else 1)
    (job.folder / "numbers.json").write_text(json.dumps(values))


@stage(
    leaves=("total.json",), read=lambda made: json.loads((made.folder / "total.json").read_text())
)
def total(job: Job, bundle: Bundle) -> None:
    MADE.append("total")
    job.meter("sum").charge(examples=7, forward_equivalents=21)
    value = sum(bundle.numbers.value) + bundle.offset
    (job.folder / "total.json").write_text(json.dumps(value))


@stage(leaves=("page.txt",), read=lambda made: (made.folder / "page.txt").read_text(), trains=False)
def page(job: Job, result: Made[int], *, title: str) -> None:
    MADE.append("page")
    (job.folder / "page.txt").write_text(f"{title}: {result.value}")


@stage(leaves=("list.csv",), read=lambda made: None, trains=False, edited=("list.csv",))
def listed(job: Job, result: Made[int]) -> None:
    MADE.append("listed")
    (job.folder / "list.csv").write_text("label\n")


@dataclasses.dataclass
class Lines:
    """What a workdir says."""

    lines: list[str] = dataclasses.field(default_factory=list)

    def write(self, text: str) -> None:
        self.lines.append(text)

    def flush(self) -> None: ...


@pytest.fixture
def said() -> Lines:
    return Lines()


@pytest.fixture
def open_workdir(tmp_path: Path, said: Lines) -> Callable[..., Workdir]:
    """Opens the same folder again, as a new command would."""
    MADE.clear()

    def opened(*redo: str) -> Workdir:
        console = Console(file=said, width=10_000)  # type: ignore[arg-type]  # it only writes
        return Workdir(
            tmp_path / "run",
            meshes.make(1),
            console,
            {"name": "test"},
            TrainConfig(),
            TrackingConfig(),
            frozenset(redo),
        )

    (tmp_path / "run").mkdir()
    return opened


def line(
    workdir: Workdir, *, size: int = 3, offset: int = 0, title: str = "sum", log_every: int = 20
) -> tuple[list[str], str]:
    """Makes the three stages; gives what ran, and the page."""
    MADE.clear()
    made = numbers(workdir, shape=Shape(size, log_every))
    summed = total(workdir, Bundle(made, offset))
    shown = page(workdir, summed, title=title)
    return list(MADE), shown.value


def test_what_is_done_is_not_made_again(open_workdir: Any) -> None:
    assert line(open_workdir()) == (["numbers", "total", "page"], "sum: 3")
    assert line(open_workdir()) == ([], "sum: 3")


def test_a_field_that_only_tells_makes_nothing_again(open_workdir: Any) -> None:
    line(open_workdir())
    assert line(open_workdir(), log_every=1) == ([], "sum: 3")


def test_other_settings_of_a_stage_that_costs_training_are_refused(
    open_workdir: Any, tmp_path: Path
) -> None:
    line(open_workdir())
    with pytest.raises(UserError, match=r"^stage numbers .*shape\.size 3, not 4.*--redo=numbers"):
        line(open_workdir(), size=4)
    with pytest.raises(UserError, match=r"^stage total .*\(offset 0, not 1\).*--redo=total"):
        line(open_workdir(), offset=1)
    assert line(open_workdir()) == ([], "sum: 3")  # the refused commands changed nothing


def test_other_settings_of_a_stage_that_costs_none_make_it_again_which_is_said(
    open_workdir: Any, said: Lines
) -> None:
    line(open_workdir())
    assert line(open_workdir(), title="Sum") == (["page"], "Sum: 3")
    assert any("stage page is made again: title 'sum', not 'Sum'" in one for one in said.lines)


def test_redo_makes_a_stage_again_and_what_follows_from_it(open_workdir: Any, said: Lines) -> None:
    line(open_workdir())
    assert line(open_workdir("numbers"), size=4) == (["numbers", "total", "page"], "sum: 6")
    told = [one for one in said.lines if "no longer the same" in one]
    assert any(
        one.startswith("stage total is made again: its input bundle.numbers") for one in told
    )
    assert line(open_workdir(), size=4) == ([], "sum: 6")


def test_redo_with_the_same_outcome_leaves_later_stages(open_workdir: Any) -> None:
    line(open_workdir())
    assert line(open_workdir("numbers")) == (["numbers"], "sum: 3")


def test_settings_that_follow_from_an_input_made_again_are_not_refused(open_workdir: Any) -> None:
    line(open_workdir())
    assert line(open_workdir("numbers"), size=4, offset=1) == (
        ["numbers", "total", "page"],
        "sum: 7",
    )


def damage_cases() -> list[Any]:
    def removed(path: Path) -> None:
        path.unlink()

    def halved(path: Path) -> None:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def emptied(path: Path) -> None:
        path.write_bytes(b"")

    def altered(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[0] ^= 1
        path.write_bytes(content)

    return [pytest.param(one, id=one.__name__) for one in (removed, halved, emptied, altered)]


@pytest.mark.parametrize("damage", damage_cases())
@pytest.mark.parametrize("name", ["numbers.json", "parts/2.txt"])
def test_a_damaged_file_is_named_and_made_again(
    open_workdir: Any, tmp_path: Path, said: Lines, name: str, damage: Callable[[Path], None]
) -> None:
    line(open_workdir())
    damage(tmp_path / "run" / name)
    assert line(open_workdir()) == (["numbers"], "sum: 3")  # equal, so that later stages stand
    assert any(f"stage numbers is made again: {name} " in one for one in said.lines)


@pytest.mark.parametrize("damage", damage_cases())
def test_a_damaged_marker_makes_the_stage_again(
    open_workdir: Any, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    line(open_workdir())
    damage(tmp_path / "run" / "stages" / "numbers.json")
    assert line(open_workdir()) == (["numbers"], "sum: 3")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", None),
        ("id", 5),
        ("done", "x"),
        ("settings", []),
        ("basis", None),
        ("files", {"numbers.json": {"size": 1}}),
        ("files", {"numbers.json": 5}),
        ("cost", {"all": {"seconds": "x"}}),
        ("cost", {"all": {"minutes": 1}}),
        ("cost", [1]),
    ],
)
def test_a_marker_with_other_fields_makes_the_stage_again(
    open_workdir: Any, tmp_path: Path, said: Lines, field: str, value: Any
) -> None:
    line(open_workdir())
    marker = tmp_path / "run" / "stages" / "numbers.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {field: value}))
    assert line(open_workdir()) == (["numbers"], "sum: 3")
    assert any("numbers.json is damaged" in one for one in said.lines)


def test_a_named_pipe_in_a_marker_s_place_is_not_waited_for(
    open_workdir: Any, tmp_path: Path
) -> None:
    line(open_workdir())
    marker = tmp_path / "run" / "stages" / "numbers.json"
    marker.unlink()
    os.mkfifo(marker)
    assert line(open_workdir()) == (["numbers"], "sum: 3")


def test_a_file_that_was_only_touched_is_whole(open_workdir: Any, tmp_path: Path) -> None:
    line(open_workdir())
    os.utime(tmp_path / "run" / "numbers.json", (1, 1))
    assert line(open_workdir()) == ([], "sum: 3")


def test_a_stage_that_was_stopped_is_resumed_with_what_it_kept(
    open_workdir: Any, tmp_path: Path
) -> None:
    stop = [True]

    @stage(leaves=("sum.txt",), read=lambda made: (made.folder / "sum.txt").read_text())
    def slow(job: Job, *, upto: int) -> None:
        done = job.scratch("parts") / "done"
        done.parent.mkdir(parents=True, exist_ok=True)
        before = done.read_text() if done.exists() else ""
        done.write_text(before + "x")
        if stop[0]:
            raise KeyboardInterrupt
        (job.folder / "sum.txt").write_text(done.read_text())

    with pytest.raises(KeyboardInterrupt):
        slow(open_workdir(), upto=2)
    with pytest.raises(UserError, match=r"^stage slow .*upto 2, not 3"):
        slow(open_workdir(), upto=3)
    stop[0] = False
    assert slow(open_workdir(), upto=2).value == "xx"
    assert not (tmp_path / "run" / "scratch" / "slow").exists()
    stop[0] = True
    with pytest.raises(KeyboardInterrupt):  # it begins anew
        slow(open_workdir("slow"), upto=3)
    stop[0] = False
    assert slow(open_workdir("slow"), upto=3).value == "xx"  # and is resumed by the same command


def test_a_kill_between_the_last_file_and_the_marker(
    open_workdir: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["sie_jax.workdir.stage"], "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            line(open_workdir())
    assert (tmp_path / "run" / "numbers.json").exists()
    (tmp_path / "run" / "data").mkdir()  # as the first stage leaves it
    (tmp_path / "run" / "stages").mkdir(exist_ok=True)  # a kill removes nothing
    assert line(open_workdir()) == (["numbers", "total", "page"], "sum: 3")


def test_what_is_refused_before_it_keeps_anything_leaves_nothing(
    open_workdir: Any, tmp_path: Path
) -> None:
    @stage(leaves=("never.txt",), read=lambda made: None)
    def refused(job: Job, *, value: int) -> None:
        if value < 0:
            raise UserError("value is negative: give another")
        (job.folder / "never.txt").write_text("")
        (job.folder / "never.txt").write_text("made")

    with pytest.raises(UserError, match="value is negative"):
        refused(open_workdir(), value=-1)
    assert not any((tmp_path / "run").iterdir())
    refused(open_workdir(), value=1)


def test_costs_stay_with_what_was_made(open_workdir: Any) -> None:
    made = numbers(open_workdir(), shape=Shape())
    for _ in range(2):
        cost = total(open_workdir(), Bundle(made, 0)).cost
        assert list(cost) == ["sum"]
        assert cost["sum"][1:] == (7, 21)


def test_what_people_wrote_is_moved_aside(open_workdir: Any, tmp_path: Path, said: Lines) -> None:
    def made() -> None:
        listed(
            open_workdir(), total(open_workdir(), Bundle(numbers(open_workdir(), shape=Shape()), 0))
        )

    made()
    for number in (1, 2):
        (tmp_path / "run" / "list.csv").write_text(f"label\ncorrected {number}\n")
        made()
        aside = tmp_path / "run" / f"list.changed-{number}.csv"
        assert aside.read_text() == f"label\ncorrected {number}\n"
        assert (tmp_path / "run" / "list.csv").read_text() == "label\n"
        assert any(f"is kept as {aside}" in one for one in said.lines)


def test_an_input_that_comes_or_goes_is_another_setting(open_workdir: Any) -> None:
    @stage(leaves=("one.txt",), read=lambda made: None)
    def one(job: Job, first: Made[Any] | None) -> None:
        (job.folder / "one.txt").write_text("1")

    made = numbers(open_workdir(), shape=Shape())
    one(open_workdir(), None)
    with pytest.raises(UserError, match=r"input first was not there.*--redo=one"):
        one(open_workdir(), made)
    one(open_workdir("one"), made)
    with pytest.raises(UserError, match=r"input first is gone.*--redo=one"):
        one(open_workdir(), None)


def test_each_run_is_a_stage_of_its_own(open_workdir: Any, tmp_path: Path) -> None:
    @dataclasses.dataclass(frozen=True)
    class Named:
        name: str
        seed: int

    @stage(
        leaves=lambda given: (f"{given['named'].name}.txt",),
        read=lambda made: made.stage,
        run="named",
    )
    def fitted(job: Job, named: Named) -> None:
        MADE.append(named.name)
        folder = job.run_folder(named.name)
        folder.mkdir(parents=True, exist_ok=True)
        (job.folder / f"{named.name}.txt").write_text(f"{named.seed} {len(list(folder.iterdir()))}")
        (folder / "step").touch()
        with pytest.raises(ValueError, match="makes no run 'other'"):
            job.run_folder("other")

    for name, seed in (("a-0", 0), ("a-1", 1)):
        assert fitted(open_workdir(), Named(name, seed)).value == f"fitted/{name}"
    MADE.clear()
    fitted(open_workdir("fitted/a-1"), Named("a-0", 0))
    fitted(open_workdir("fitted/a-1"), Named("a-1", 5))
    assert MADE == ["a-1"]
    assert (tmp_path / "run" / "a-1.txt").read_text() == "5 0"  # its checkpoints are gone
    (tmp_path / "run" / "a-1.txt").unlink()
    fitted(open_workdir(), Named("a-1", 5))
    assert (tmp_path / "run" / "a-1.txt").read_text() == "5 1"  # damaged: its checkpoints stay


def test_what_is_neither_a_section_nor_json_is_no_argument(open_workdir: Any) -> None:
    @stage(leaves=("x",), read=lambda made: None)
    def wrong(job: Job, *, path: Any) -> None: ...

    with pytest.raises(TypeError, match="PosixPath is neither a section nor a JSON value"):
        wrong(open_workdir(), path=Path("x"))


def test_a_stage_that_does_not_leave_its_files_is_an_error(open_workdir: Any) -> None:
    @stage(leaves=("x",), read=lambda made: None)
    def forgetful(job: Job) -> None: ...

    with pytest.raises(AssertionError, match="a stage has not left"):
        forgetful(open_workdir())


def test_a_change_of_what_is_read_from_outside_is_told_as_such(open_workdir: Any) -> None:
    @stage(leaves=("x",), read=lambda made: None)
    def reading(job: Job, *, inputs: dict[str, Any], size: int = 0) -> None:
        (job.folder / "x").write_text("x")

    reading(open_workdir(), inputs={"data": {"a.csv": "content 1"}})
    for inputs, told in (
        ({"data": {"a.csv": "content 2"}}, "inputs.data.a.csv 'content 1', not 'content 2'"),
        (
            {"data": {"a.csv": "content 1", "b.csv": "content 3"}},
            "inputs.data.b.csv None, not 'content 3'",
        ),
        ({"data": {}}, "inputs.data.a.csv 'content 1', not None"),
    ):
        with pytest.raises(UserError, match=f"was made with other inputs .{told}.*--redo=reading"):
            reading(open_workdir(), inputs=inputs)
    with pytest.raises(UserError, match="was made with other settings"):
        reading(open_workdir(), inputs={"data": {"a.csv": "content 2"}}, size=1)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_file_where_a_run_keeps_a_folder_is_refused(
    open_workdir: Any, tmp_path: Path, name: str
) -> None:
    (tmp_path / "run" / name).symlink_to("nowhere")
    with pytest.raises(UserError, match=f"has a file {name}, where a run keeps a folder: remove"):
        open_workdir()
    (tmp_path / "run" / name).unlink()
    (tmp_path / "run" / name).write_text("mine")
    with pytest.raises(UserError, match=f"has a file {name}, where a run keeps a folder: remove"):
        open_workdir()


@pytest.mark.parametrize("name", ["audit.csv", "report.html", "rejected.parquet", "ledger"])
def test_what_a_run_would_replace_is_refused(open_workdir: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / "run" / name).mkdir()
    with pytest.raises(UserError, match=f"has a folder {name} that no run made: give another"):
        open_workdir()


def test_a_folder_that_no_run_made_is_refused(open_workdir: Any, tmp_path: Path) -> None:
    (tmp_path / "run" / "model").mkdir()
    with pytest.raises(UserError, match=r"has a folder model that no run made: give another"):
        open_workdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"was made by an older version of sie_jax: give another"):
        open_workdir()
