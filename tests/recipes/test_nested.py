"""Nested cross-validation: every query tested once, and what the folds give together."""

import math
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import workdirs
from markupsafe import escape
from running import Commands, config_text
from scipy import stats
from tiny_runs import run
from workdirs import made_since, markers

from sie_jax.config import Config
from sie_jax.errors import UserError
from sie_jax.files import read_json

pytestmark = pytest.mark.slow

FOLDS = 2
FIELDS = {
    "data.synthetic.queries": 18,
    "data.synthetic.items_per_query": 6,
    "train.epochs": 2,
    "train.checkpoint_every": 6,
    "evaluation.folds": FOLDS,
}


class Done(NamedTuple):
    workdir: Path
    metrics: dict[str, Any]
    said: str

    def folds(self) -> list[Path]:
        return [self.workdir / "folds" / str(fold) for fold in range(FOLDS)]


def config(**changed: int) -> Config:
    """The config of the runs below, with other fields of its section evaluation."""
    names: dict[str, Any] = {}
    exec(config_text(FIELDS), names)
    made: Config = names["get_config"]()
    for name, value in changed.items():
        setattr(made.evaluation, name, value)
    return made


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory, forks: Any) -> Commands:
    return Commands(tmp_path_factory.mktemp("nested"), forks, FIELDS)


@pytest.fixture(scope="module")
def done(commands: Commands) -> Done:
    workdir = commands.folder / "done"
    with commands.started(commands.config, f"--workdir={workdir}") as process:
        code, said, error = process.done()
    assert code == 0, error
    return Done(workdir, read_json(workdir / "metrics.json"), said)


def by_query(fold: Path) -> dict[str, dict[str, float]]:
    """nDCG@10 of each column of a fold's rankings, by query, from its definition."""
    gains = read_json(fold / "data" / "prepared.json")["gains"]
    pairs = pq.read_table(fold / "rankings.parquet").to_pylist()
    columns = [name for name in pairs[0] if name.rpartition("-")[2] == "0"]
    found: dict[str, dict[str, float]] = {name.removesuffix("-0"): {} for name in columns}

    def dcg(ordered: list[dict[str, Any]]) -> float:
        return sum(gains[p["label"]] / math.log2(r + 2) for r, p in enumerate(ordered[:10]))

    for query in {pair["query_id"] for pair in pairs}:
        own = [pair for pair in pairs if pair["query_id"] == query]
        best = dcg(sorted(own, key=lambda pair: -gains[pair["label"]]))
        for name in columns:
            ranked = sorted(own, key=lambda pair: (-pair[name], pair["example_id"]))
            if best:
                found[name.removesuffix("-0")][query] = dcg(ranked) / best
    return found


def test_every_query_is_tested_once_and_trained_on_where_it_is_not(done: Done) -> None:
    splits = []
    for fold in done.folds():
        pairs = pq.read_table(fold / "data" / "pairs.parquet").to_pylist()
        of_query: dict[str, set[str]] = {}
        for pair in pairs:
            of_query.setdefault(pair["query_id"], set()).add(pair["split"])
        assert all(len(names) == 1 for names in of_query.values())
        splits.append({query: names.pop() for query, names in of_query.items()})
    everyone = set(pq.read_table(done.workdir / "data" / "pairs.parquet")["query_id"].to_pylist())
    for query in everyone:
        assert Counter(one[query] for one in splits)["test"] == 1
    assert all(one.keys() == everyone for one in splits)
    given = [read_json(fold / "config.json") for fold in done.folds()]
    assert [one["data"]["test_fold"] for one in given] == [*range(FOLDS)]
    assert {one["data"]["test_folds"] for one in given} == {FOLDS}
    assert {one["evaluation"]["folds"] for one in given} == {0}
    # the ordinary run beside them is as it would be without folds
    assert read_json(done.workdir / "config.json")["data"]["test_folds"] == 0


def test_what_is_pooled_is_of_the_folds_own_rankings(done: Done) -> None:
    nested, each = done.metrics["nested"], [by_query(fold) for fold in done.folds()]
    exported = [read_json(fold / "metrics.json")["verdict"]["ranker"] for fold in done.folds()]
    assert nested["exported_by_fold"] == exported
    for one, ranker in zip(each, exported, strict=True):
        one["exported"] = one[ranker]
    runs = set.intersection(*(set(one) for one in each))
    assert {"bm25", "linear", "uniform", "weighted", "exported"} <= runs == {*nested["ndcg@10"]}
    pooled = {run: {k: v for one in each for k, v in one[run].items()} for run in runs}
    queries = sum(len(one["exported"]) for one in each)
    kept = pq.read_table(done.workdir / "data" / "pairs.parquet")["query_id"].unique()
    assert nested["queries"] == len(pooled["exported"]) == queries
    assert nested["queries"] + nested["without_positive_gain"] == len(kept)
    assert nested["folds"] == FOLDS
    for name in runs:
        found = nested["ndcg@10"][name]
        assert found["value"] == pytest.approx(np.mean(list(pooled[name].values())))
        assert found["low"] < found["value"] < found["high"]

    verdict = nested["verdict"]
    baselines = ("random", "token_overlap", "bm25")
    best = max(baselines, key=lambda run: nested["ndcg@10"][run]["value"])
    differences = [value - pooled[best][query] for query, value in pooled["exported"].items()]
    interval = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert verdict.keys() == done.metrics["verdict"].keys()
    assert (verdict["ranker"], verdict["best_baseline"]) == ("exported", best)
    assert verdict["ndcg@10"] == {
        "value": pytest.approx(np.mean(differences)),
        "low": pytest.approx(interval.low),
        "high": pytest.approx(interval.high),
    }
    weighted = nested["ndcg@10"]["weighted"]["value"] - nested["ndcg@10"]["uniform"]["value"]
    assert verdict["weighting"] == {"value": pytest.approx(weighted), "low": None, "high": None}


def test_the_first_verdict_is_that_over_all_queries(done: Done) -> None:
    nested, ordinary = done.metrics["nested"]["verdict"], done.metrics["verdict"]
    queries = done.metrics["nested"]["queries"]
    tested = f"Over all {queries} queries, each tested once by {FOLDS}-fold"
    assert nested["notes"][0].startswith(tested)
    said = " ".join(done.said.split())
    assert said.index(" ".join(nested["notes"])) < said.index(" ".join(ordinary["notes"]))
    page = (done.workdir / "report.html").read_text(encoding="utf-8")
    assert page.index(str(escape(nested["notes"][0]))) < page.index(
        str(escape(ordinary["notes"][0]))
    )
    assert '<section id="nested">' in page
    assert ordinary["ranker"] == read_json(done.workdir / "contest.json")["outcome"]["ranker"]


def test_the_folds_cost_what_their_ledgers_say(done: Done) -> None:
    entries = [
        cost
        for fold in done.folds()
        for marker in (fold / "stages").rglob("*.json")
        for cost in read_json(marker)["cost"].values()
    ]
    found = done.metrics["cost"]["nested"]
    for name in ("seconds", "examples", "forward_equivalents"):
        assert found[name] == pytest.approx(sum(one[name] for one in entries)), name
    trained = sum(
        read_json(fold / "metrics.json")["cost"][run]["examples"]
        for fold in done.folds()
        for run in ("uniform", "weighted")
    )
    assert found["examples"] >= trained > 0


def test_the_same_command_again_repeats_nothing(commands: Commands, done: Done) -> None:
    before = workdirs.times(done.workdir)
    with commands.started(commands.config, f"--workdir={done.workdir}") as process:
        code, said, _ = process.done()
    assert code == 0
    assert workdirs.times(done.workdir) == before
    assert done.metrics["nested"]["verdict"]["notes"][0] in " ".join(said.split())


def test_a_run_killed_in_a_fold_goes_on_there(commands: Commands, done: Done) -> None:
    workdir = commands.folder / "killed"
    given = (commands.config, f"--workdir={workdir}")
    with commands.started(*given) as process:
        process.wait(lambda: bool(workdirs.steps(workdir / "folds" / "1", "uniform-0")))
        process.send(signal.SIGKILL)
    assert not (workdir / "metrics.json").exists()
    before = workdirs.times(workdir / "folds" / "0")
    standing = markers(workdir / "folds" / "1")
    assert "evaluate" in markers(workdir / "folds" / "0")
    assert "prepare" in standing
    assert "train/uniform-0" not in standing
    with commands.started(*given) as process:
        assert process.done().code == 0
    assert workdirs.times(workdir / "folds" / "0") == before
    assert not standing.keys() & made_since(workdir / "folds" / "1", standing)
    assert read_json(workdir / "nested.json") == read_json(done.workdir / "nested.json")
    workdirs.assert_same_results(workdir, done.workdir)


def test_folds_asked_for_later_or_no_longer_touch_no_training(done: Done, tmp_path: Path) -> None:
    workdir = Path(shutil.copytree(done.workdir, tmp_path / "run"))
    before, of_folds = markers(workdir), workdirs.times(workdir / "folds")
    metrics = run(config(folds=0), workdir)
    assert made_since(workdir, before) == {"evaluate"}
    assert "nested" not in metrics
    assert "nested" not in metrics["cost"]
    page = (workdir / "report.html").read_text(encoding="utf-8")
    assert '<section id="nested">' not in page
    before = markers(workdir)
    assert run(config(), workdir)["nested"] == done.metrics["nested"]
    assert made_since(workdir, before) == {"evaluate"}
    assert workdirs.times(workdir / "folds") == of_folds


def test_other_folds_in_the_same_workdir_are_refused(done: Done) -> None:
    before = workdirs.times(done.workdir)
    with pytest.raises(UserError, match=r"data\.test_folds 2, not 4.*--redo=prepare") as caught:
        run(config(folds=4), done.workdir)
    assert "\n" not in str(caught.value)
    assert workdirs.times(done.workdir) == before


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        (19, r"18 queries are too few for 19 folds, each with a query to test: give fewer folds"),
        (1, r"evaluation\.folds is 1: give at least 2, or 0 for none"),
    ],
)
def test_too_many_folds_or_one_end_the_run_before_anything_is_written(
    folds: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        run(config(folds=folds), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
