"""Choose: within its budget, charged for what it took, and resumed without training again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import workdirs
from tiny_runs import opened, run, unexplained

from sie_jax.config import Config
from sie_jax.data import preparing
from sie_jax.files import read_json
from sie_jax.importance import choosing
from sie_jax.stages import choose
from sie_jax.stages.cross_fit import OutOfFold
from sie_jax.stages.pair_runs import Examples, PairRuns
from sie_jax.tables import parts
from sie_jax.workdir import Made

pytestmark = pytest.mark.slow


BUDGET = 4.0


class Chosen(NamedTuple):
    """A finished run, and the names of what was trained by its first and its second command."""

    workdir: Path
    first: list[str]
    second: list[str]
    weights: dict[str, Examples]
    starts: dict[str, Any]


def auto() -> Config:
    return unexplained(policy="auto", choosing_budget=BUDGET, balance="class")


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Chosen:
    """It was killed after the last trial, and run again."""
    workdir, trained = tmp_path_factory.mktemp("chosen") / "run", list[str]()
    weights, starts = dict[str, Examples](), dict[str, Any]()
    fit = PairRuns.fit

    def spy(self: PairRuns, run: Any, *args: Any, **options: Any) -> Any:
        trained.append(run.name)
        weights[run.name] = args[0] if args else Examples()
        starts[run.name] = options.get("params")
        return fit(self, run, *args, **options)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PairRuns, "fit", spy)
        with patch.context() as inner:
            inner.setattr(choose, "write_json", killed)
            with pytest.raises(KeyboardInterrupt):
                run(auto(), workdir)
        first = list(trained)
        trained.clear()
        run(auto(), workdir)
    return Chosen(workdir, first, trained, weights, starts)


def test_it_keeps_to_its_budget_and_takes_what_is_better(chosen: Chosen) -> None:
    metrics = read_json(chosen.workdir / "metrics.json")
    choice = read_json(chosen.workdir / "choosing.json")
    assert metrics["choosing"] == choice
    candidates = {one.name: one for one in (choosing.UNIFORM, *choosing.CANDIDATES)}
    tried = {row["candidate"] for row in choice["comparison"]}
    assert tried == {"uniform", *(one.name for one in choosing.CANDIDATES[: len(tried) - 1])}
    better = choice["interval"]["low"] is not None and choice["interval"]["low"] > 0
    taken = candidates[choice["chosen"]["name"]]
    assert taken.name == (choice["contender"]["name"] if better else "uniform")
    cost = choice["cost"]
    assert cost["budget"] == BUDGET
    # a sum of shares: within the budget but for rounding in its last digits
    assert 0 < cost["spent"] <= BUDGET * (1 + 1e-12)
    rows = read_json(chosen.workdir / "cleaning.json")["splits"]["train"]
    table = pq.read_table(chosen.workdir / "importance.parquet")
    section = auto().importance.with_candidate(taken)
    training = preparing.load(chosen.workdir).split("train")
    weights = section.weights(table[taken.score].to_numpy(), training, section.policy)
    np.testing.assert_allclose(table["weight"].to_numpy(), weights * rows, rtol=1e-5)
    origin = parts.provenance(chosen.workdir / "importance.parquet")
    assert origin["weight"].score == taken.policy.name
    page = (chosen.workdir / "report.html").read_text(encoding="utf-8")
    assert '<section id="choosing">' in page


def test_the_weighted_run_is_charged_what_choosing_took(chosen: Chosen) -> None:
    metrics = read_json(chosen.workdir / "metrics.json")
    rows = read_json(chosen.workdir / "cleaning.json")["splits"]["train"]
    charged = {name: one["forward_equivalents"] for name, one in metrics["cost"].items()}
    assert charged["uniform"] == 3 * rows
    entries = workdirs.costs(chosen.workdir, "choose")
    took = sum(one["forward_equivalents"] for one in entries.values())
    assert charged["weighted"] == 8 * rows + took
    examples = sum(one["examples"] for one in entries.values())
    assert metrics["cost"]["weighted"]["examples"] == 3 * rows + examples
    prices = {"predicted": 1, "scores": 2}
    for name, one in entries.items():
        (price,) = [p for kind, p in prices.items() if kind in name] or [3]
        assert one["forward_equivalents"] == price * one["examples"] > 0, name
    # the budget is for shares of the rows, of which whole queries are taken: at most as much
    planned = 3 * rows * read_json(chosen.workdir / "choosing.json")["cost"]["spent"]
    assert planned / 2 < took <= planned * (1 + 1e-12)


def test_every_trial_starts_as_runs_that_are_deployed_do(chosen: Chosen) -> None:
    """From the parameters of its seed: it does not go on where the warm-up ended."""
    assert chosen.starts
    assert set(chosen.starts.values()) == {None}


def decided(
    config: Config, folder: Path, spoilt: Callable[[pa.Table, np.ndarray], np.ndarray]
) -> dict[str, Any]:
    """What is chosen where out-of-fold predictions are as `spoilt` makes them of the labels."""
    with opened(config, folder / "run") as (workdir, start):
        prepared = start.prepared.value
        training = prepared.split("train")
        labels = training["label"].to_numpy()
        grades, expected = len(prepared.scale.names), spoilt(training, labels)
        sure = np.where(np.arange(grades) == expected[:, None], 0.97, 0.03 / (grades - 1))
        columns = {f"probability_{grade}": sure[:, grade] for grade in range(grades)}
        place = pa.table({"fold": np.zeros(len(labels), np.int32)})
        held_out = Made("cross_fit", "given", {}, folder, lambda _: OutOfFold(place, columns))
        choose.choose(
            workdir,
            start,
            held_out,
            importance=config.importance,
            split_seed=0,
            evaluation=config.evaluation,
        )
        found: dict[str, Any] = read_json(workdir.folder / "choosing.json")
        return found


def test_queries_that_are_labelled_blindly_are_tried_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every third query the predictions are right and the labels are those of other items."""
    tried = list[str]()

    def trial(self: choose.Trials, *given: Any) -> np.ndarray:
        tried.append(given[2].name)
        return np.full(5, 0.5)

    def spoilt(training: pa.Table, labels: np.ndarray) -> np.ndarray:
        expected, queries = labels.copy(), training["query_id"].to_numpy()
        for query in np.unique(queries)[::3]:
            rows = np.flatnonzero(queries == query)
            expected[rows] = np.roll(labels[rows], 1)
        return expected

    monkeypatch.setattr(choose.Trials, "_tried", trial)
    config = unexplained(policy="auto")
    found = decided(config, tmp_path / "blind", spoilt)
    assert tried[:2] == ["uniform", "doubtful_groups believed"]
    assert found["outlying"] == 0
    tried.clear()
    decided(config, tmp_path / "honest", lambda _, labels: labels)
    assert tried[:2] == ["uniform", choosing.CANDIDATES[0].name]


def test_sellers_unlike_all_others_are_left_out_without_a_trial(tmp_path: Path) -> None:
    """The items of one brand in ten are all labelled exact."""
    config = unexplained(policy="auto", seller="brand")
    config.data.source, config.data.path = "table", str(tmp_path / "pairs.parquet")
    config.data.table.attributes = ("brand",)
    rng = np.random.default_rng(0)
    query, brand = np.repeat(np.arange(60), 10), rng.integers(0, 10, 600)
    label = np.where(brand == 3, 3, rng.integers(0, 4, 600))
    columns = {
        "query": [f"query {one}" for one in query],
        "title": [f"item {one}" for one in range(600)],
        "label": label,
        "brand": [f"brand {one}" for one in brand],
    }
    pq.write_table(pa.table(columns), tmp_path / "pairs.parquet")
    found = decided(config, tmp_path, lambda _, labels: labels)
    assert found["chosen"]["name"] == "doubtful_groups believed"
    assert (found["comparison"], found["cost"]["spent"]) == ([], 0.0)
    assert found["outlying"] == pytest.approx((brand == 3).mean(), abs=0.03)  # of training pairs


def test_every_trial_is_balanced_as_the_run_will_be(chosen: Chosen) -> None:
    labels = preparing.load(chosen.workdir).split("train")["label"].to_numpy()
    tried = [one for name, one in chosen.weights.items() if name.startswith("choosing_")]
    tried = [one for one in tried if one.weights is not None]
    assert len(tried) > 3
    for rows, weights, _ in tried:
        counts = np.bincount(labels[rows])
        # sums of some hundred float32 numbers, whose mean is 1
        np.testing.assert_allclose(np.bincount(labels[rows], weights[rows]), counts, rtol=1e-4)


def test_choosing_that_was_stopped_repeats_no_run(chosen: Chosen) -> None:
    assert chosen.first
    assert all(name.startswith("choosing_") for name in chosen.first)
    assert chosen.second == ["warmup", "uniform-0", "weighted-0"]


def test_no_checkpoint_of_a_trial_stays(chosen: Chosen) -> None:
    names = {path.name for path in (chosen.workdir / "checkpoints").iterdir()}
    assert names == {"warmup", "uniform-0", "weighted-0"}
    assert {line["run"] for line in workdirs.lines(chosen.workdir)} == names
