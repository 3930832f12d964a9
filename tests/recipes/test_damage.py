"""Whatever is damaged in a workdir, the next run makes it again or says so in one line."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import workdirs
from tiny_runs import run, tiny

from sie_jax.config import Config, as_json
from sie_jax.errors import UserError
from sie_jax.files import read_json

pytestmark = pytest.mark.slow


def every_stage() -> Config:
    """A run of some two hundred pairs that makes every stage there is."""
    config = tiny(policy="auto", choosing_budget=2.0, estimators=("knn_shapley",))
    config.data.synthetic.queries = 34
    config.pretrain.steps = config.pretrain.evaluate_every = 2
    config.pretrain.batch_size = 16
    config.train.folds = 2
    config.train.learning_rates = (1e-3,)
    config.evaluation.explained_queries = config.evaluation.changed_queries = 2
    return config


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished workdir of a run with every stage, which no test changes."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    run(every_stage(), workdir)
    return workdir


@pytest.fixture
def workdir(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def files_of(workdir: Path) -> dict[str, list[Path]]:
    """The files that each stage left, by the stage's name."""
    return {
        stage: [workdir / name for name in read_json(workdir / "stages" / f"{stage}.json")["files"]]
        for stage in workdirs.markers(workdir)
    }


# ------------------------------------------------------------------------------- kinds of damage


def deleted(path: Path) -> None:
    path.unlink()


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def garbled(path: Path) -> None:
    path.write_bytes(b"[\xff" + path.read_bytes())


def permuted(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.take(np.arange(table.num_rows)[::-1]), path)


def shortened(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.slice(0, max(0, table.num_rows - 5)), path)


def with_nan(path: Path) -> None:
    table = pq.read_table(path)
    for place, field in enumerate(table.schema):
        if pa.types.is_floating(field.type) and table.num_rows:
            values = table[field.name].to_numpy().copy()
            values[0] = np.nan
            table = table.set_column(place, field, pa.array(values, field.type))
            break
    pq.write_table(table, path)


Damage = Callable[[Path], None]
OF_FILES: tuple[Damage, ...] = (deleted, halved, emptied)
OF_TABLES: tuple[Damage, ...] = (permuted, shortened, with_nan)


def has_floats(path: Path) -> bool:
    schema = pq.read_schema(path)
    return pq.read_metadata(path).num_rows > 0 and any(
        pa.types.is_floating(field.type) for field in schema
    )


def suits(damage: Damage, path: Path) -> bool:
    """Whether the damage changes anything in a file."""
    if damage in OF_FILES:
        return True
    if path.suffix != ".parquet" or pq.read_metadata(path).num_rows < 2:
        return False
    return damage is not with_nan or has_floats(path)


# ------------------------------------------------------------------------------------------ tests


def repaired(config: Config, workdir: Path, wanted: Path) -> str:
    """Runs a config on a damaged workdir, which then has the results of `wanted`; gives what it
    said."""
    said = io.StringIO()
    run(config, workdir, said=said)
    assert_repaired(workdir, wanted)
    return said.getvalue()


def assert_repaired(workdir: Path, wanted: Path) -> None:
    """Every stage's files are those of `wanted`, but for times; the drawn log and config too."""
    workdirs.assert_same_results(workdir, wanted)
    for name in ("importance.parquet", "config.json"):
        assert (workdir / name).read_bytes() == (wanted / name).read_bytes(), name
    theirs = files_of(wanted)
    assert files_of(workdir).keys() == theirs.keys()
    for stage, files in theirs.items():
        for file in files:
            name = file.relative_to(wanted)
            assert (workdir / name).exists(), name
            if stage != "evaluate" or name.parts[0] in ("trec", "groups"):  # others hold times
                assert (workdir / name).read_bytes() == file.read_bytes(), name


def test_there_are_all_stages_and_some_two_hundred_pairs(whole: Path) -> None:
    assert set(files_of(whole)) == {
        *(
            "prepare",
            "features",
            "linear",
            "trees",
            "translation",
            "pretrain",
            "tune",
            "cross_fit",
            "choose",
        ),
        *("score", "weigh", "audit"),
        *("train/uniform-0", "train/weighted-0"),
        *(f"rehearse/weighted-fold-{fold}" for fold in range(2)),
        *("contest", "export", "explain", "robustness", "evaluate"),
    }
    assert 150 < read_json(whole / "cleaning.json")["kept"] < 220


@pytest.mark.parametrize("half", [0, 1])
def test_files_of_stages_are_made_again(workdir: Path, whole: Path, half: int) -> None:
    """Those of every second stage, so that each is made again from whole inputs for whole ones.

    Each file gets the damage that suits it and has been the rarest so far.
    """
    stages = dict(list(files_of(workdir).items())[half::2])
    used: list[Damage] = []
    for file in (file for files in stages.values() for file in files):
        kinds = [damage for damage in (*OF_TABLES, *OF_FILES) if suits(damage, file)]
        used.append(min(kinds, key=used.count))
        used[-1](file)
    assert set(used) == {*OF_FILES, *OF_TABLES}
    before = workdirs.markers(workdir)
    said = repaired(every_stage(), workdir, whole)
    assert workdirs.made_since(workdir, before) == set(stages)
    for stage, files in stages.items():
        (line,) = [x for x in said.splitlines() if x.startswith(f"stage {stage} is made again: ")]
        for file in files:
            assert f"{file.relative_to(workdir)} " in line
    before = workdirs.markers(workdir)
    run(every_stage(), workdir)
    assert workdirs.made_since(workdir, before) == set()


def test_folders_of_stages_are_made_again(workdir: Path, whole: Path) -> None:
    for name in ("model", "data", "pretraining", "predictions", "vectors", "trec", "groups"):
        shutil.rmtree(workdir / name)
    repaired(every_stage(), workdir, whole)


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of the smaller finished workdir, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_stages_with_damaged_markers_are_made_again(copy: Path, finished: Path) -> None:
    """Every marker is damaged, and every kind of damage stands in some: one code reads them all."""
    kinds = (*OF_FILES, garbled)
    stages = workdirs.markers(copy)
    for place, stage in enumerate(stages):
        kinds[place % 4](copy / "stages" / f"{stage}.json")
    said = repaired(tiny(), copy, finished)
    assert said.count("is damaged (") == sum(place % 4 > 0 for place in range(len(stages)))


def test_without_its_marker_nothing_of_a_stage_is_used(copy: Path, finished: Path) -> None:
    """What a run was made of is partly in the marker alone: the model is, and the data."""
    for stage in workdirs.markers(copy):
        if stage != "prepare":
            (copy / "stages" / f"{stage}.json").unlink()
    config = tiny()
    config.model.dropout = 0.5
    run(config, copy)
    for name in ("warmup", "uniform-0", "weighted-0"):
        ours, theirs = (
            [x["loss"] for x in workdirs.lines(one) if x["run"] == name and "loss" in x]
            for one in (copy, finished)
        )
        assert len(ours) == len(theirs)
        assert ours[0] != theirs[0]


# what a stage reads beside other stages' results: damaged, and the stage made again
FORCED = ("scores.json", "predictions/uniform-0.json", "explanations.parquet", "robustness.json")


def forced(workdir: Path) -> None:
    """Damages a file of each stage that trains or passes over data, so that it is made again."""
    for name in FORCED:
        emptied(workdir / name)


@pytest.mark.parametrize("damage", OF_FILES)
def test_what_stages_keep_is_checked_where_it_is_used(
    copy: Path, finished: Path, damage: Damage
) -> None:
    """Costs, the newest checkpoint of one run, the digests of another, and all logs."""
    entries = list((copy / "ledger").rglob("*.json"))
    assert len(entries) >= 6
    newest = copy / "checkpoints" / "warmup" / "steps" / "7"
    parts = [path for path in newest.rglob("*") if path.is_file() and path.stat().st_size]
    digests = copy / "checkpoints" / "uniform-0" / "steps.digests" / "7.json"
    for path in (*entries, *parts, digests):
        damage(path)
    logs = [log for log in copy.rglob("*.jsonl") if log.name != "audit.jsonl"]
    for log in logs:  # garbage at the end
        with log.open("ab") as file:
            file.write(b'\x00\xff{"run": \n[]\n{"step"')
    before = workdirs.markers(copy)
    run(tiny(), copy)
    assert workdirs.made_since(copy, before) == set()  # what stands needs none of it
    forced(copy)
    said = repaired(tiny(), copy, finished)
    # whatever is left of a checkpoint without its files, Orbax takes for none
    assert damage is deleted or f"the checkpoint {newest} is broken (" in said
    assert (damage is deleted) == ("steps.digests/7.json is damaged" not in said)
    assert f"{copy / 'checkpoints' / 'weighted-0' / 'metrics.jsonl'}: 3 lines are damaged" in said
    for name in ("warmup", "uniform-0"):  # these were resumed
        log = Path("checkpoints") / name / "metrics.jsonl"
        assert (copy / log).read_bytes() == (finished / log).read_bytes()


@pytest.mark.parametrize("damage", [*OF_FILES, garbled])
def test_what_no_stage_left_is_written_again(copy: Path, finished: Path, damage: Damage) -> None:
    before = workdirs.markers(copy)
    for name in ("config.json", "metrics.jsonl", "speed.jsonl"):
        damage(copy / name)
    repaired(tiny(), copy, finished)
    assert workdirs.made_since(copy, before) == set()
    assert read_json(copy / "config.json") == as_json(tiny())
    assert (copy / "speed.jsonl").read_bytes() == (finished / "speed.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("of_run", "of_history"), [(deleted, deleted), (emptied, shortened), (garbled, with_nan)]
)
def test_what_cannot_be_trusted_is_named(
    copy: Path, finished: Path, of_run: Damage, of_history: Damage
) -> None:
    """What a run was made as, and what it showed of each example; each line says the way on."""
    history = copy / "checkpoints" / "warmup" / "history"
    description = copy / "checkpoints" / "uniform-0" / "run.json"
    of_history(sorted(history.iterdir())[0])
    of_run(description)
    before = workdirs.markers(copy)
    run(tiny(), copy)
    assert workdirs.made_since(copy, before) == set()  # nothing reads them
    forced(copy)
    for place, told in (
        (history.parent, rf"^{history}/0000000006\.parquet is missing or not .*: remove"),
        (description.parent, rf"^{description.parent}.*run\.json.*remove (this|its) folder"),
    ):
        with pytest.raises(UserError, match=told) as caught:
            run(tiny(), copy)
        assert "\n" not in str(caught.value)
        shutil.rmtree(place)  # as the line says
    repaired(tiny(), copy, finished)


def test_checkpoints_that_are_all_damaged_end_in_one_line(copy: Path, finished: Path) -> None:
    steps = copy / "checkpoints" / "uniform-0" / "steps"
    for path in steps.rglob("*"):
        if path.is_file() and path.stat().st_size:
            halved(path)
    forced(copy)
    with pytest.raises(UserError, match=f"^no checkpoint in {steps} can be read") as caught:
        run(tiny(), copy)
    assert "\n" not in str(caught.value)
    shutil.rmtree(steps.parent)  # as the line says
    repaired(tiny(), copy, finished)


def test_what_stands_needs_no_checkpoints(copy: Path, finished: Path) -> None:
    """The folder of every run is gone: those that are made again are trained again."""
    shutil.rmtree(copy / "checkpoints")
    shutil.rmtree(copy / "ledger")
    forced(copy)
    run(tiny(), copy)
    assert {line["run"] for line in workdirs.lines(copy)} == {
        "warmup",
        "uniform-0",
    }  # weighted-0 stands, but its log is lost
    assert workdirs.measured(copy) == workdirs.measured(finished)
