"""Selection: of a run's weights those are taken that do best on the validation queries."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from compiling import quickly
from tiny_runs import opened, pair_runs, run, unexplained

from sie_jax.config import Config
from sie_jax.files import read_json
from sie_jax.stages import selection
from sie_jax.stages.selection import LAST, trained
from sie_jax.training.run import Run

pytestmark = pytest.mark.slow

EPOCHS = 3
NAMES = [
    *(LAST, "epoch 1", "epoch 2", "mean of epochs 2 to 3", "mean of epochs 1 to 3"),
    *("0.25 of the way", "0.5 of the way", "0.75 of the way"),
]


def config() -> Config:
    made = unexplained()
    made.train.epochs, made.train.learning_rate = EPOCHS, 3e-3
    made.train.select = ("epochs", "averages", "interpolations")
    return made


def assert_equal(ours: Any, theirs: Any) -> None:
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        # a mean of three float32 numbers
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_every_candidate_is_what_its_name_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = config()
    with opened(made, tmp_path / "run") as (workdir, start), quickly():
        runs = pair_runs(workdir, start, "uniform-0")
        one = Run("uniform-0", start.seed, start.train)
        seen: dict[str, Any] = {}
        real = selection._candidates

        def candidates(*given: Any) -> Any:
            for name, params in real(*given):
                seen[name] = jax.device_get(params)
                yield name, params

        monkeypatch.setattr(selection, "_candidates", candidates)
        found = trained(runs, one)
        assert list(found.values) == list(seen) == NAMES
        best = max(found.values, key=lambda name: (found.values[name], name == LAST))
        assert found.values[found.name] == found.values[best]
        assert_equal(found.params, seen[found.name])

        steps = runs.epoch_ends(one)
        assert steps == [runs.planner.steps_per_epoch * (n + 1) for n in range(EPOCHS)]
        like = runs.state(one, total_steps=1)
        ends = [runs.checkpoint(one, like, step).params for step in steps]
        assert_equal(seen[LAST], ends[-1])
        assert_equal(seen["epoch 1"], ends[0])
        mean = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *ends)
        assert_equal(seen["mean of epochs 1 to 3"], mean)
        half = jax.tree.map(lambda a, b: (a + b) / 2, runs.params("", seed=one.seed), ends[-1])
        assert_equal(seen["0.5 of the way"], half)
        for name in (LAST, found.name):
            measured = runs.measured(seen[name], "validation")
            assert measured["ndcg@10"] == pytest.approx(found.values[name])


def test_a_run_says_what_was_taken_and_predicts_by_it(tmp_path: Path) -> None:
    made = config()
    metrics = run(made, tmp_path / "run")
    for name in ("uniform", "weighted"):
        (told,) = metrics["selected"][name]
        assert list(told["validation"]) == NAMES
        values = told["validation"]
        assert values[told["weights"]] == max(values.values())
        assert told == read_json(tmp_path / "run" / "predictions" / f"{name}-0.json")["selected"]


def test_without_a_choice_nothing_is_chosen(finished: Path) -> None:
    assert "selected" not in read_json(finished / "metrics.json")
    told = read_json(finished / "predictions" / "uniform-0.json")["selected"]
    assert told == {"weights": LAST, "validation": {}}
