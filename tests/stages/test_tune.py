"""Tune: the learning rate that does best on the validation queries."""

from pathlib import Path

import pytest
import workdirs
from tiny_runs import run, unexplained

from sie_jax.errors import NumericalError, UserError
from sie_jax.files import read_json

pytestmark = pytest.mark.slow


def test_the_best_learning_rate_on_validation_queries_is_taken(
    finished: Path, tmp_path: Path
) -> None:
    """Of one that learns nothing, the tiny run's own, and one at which the loss overflows."""
    config = unexplained()
    config.train.learning_rates, config.train.learning_rate = (1e-12, 1e-3, 1e30), 0.5
    metrics = run(config, tmp_path)
    tuning = metrics["tuning"]
    assert tuning == read_json(tmp_path / "tuning.json")
    assert tuning["diverged"] == [1e30]
    merits = {
        float(rate): (found["ndcg@10"]["value"], found["accuracy"]["value"])
        for rate, found in tuning["validation"].items()
    }
    assert set(merits) == {1e-12, 1e-3}
    assert tuning["chosen"] == max(merits, key=lambda rate: merits[rate])
    logged = workdirs.lines(tmp_path)
    (at_rate,) = [x for x in logged if x["run"] == "rate_0.001" and "validation_loss" in x]
    assert at_rate["validation_ndcg@10"] == pytest.approx(merits[1e-3][0])
    (uniform,) = [x for x in logged if x["run"] == "uniform-0" and "validation_loss" in x]
    assert uniform["validation_ndcg@10"] == pytest.approx(merits[tuning["chosen"]][0])
    for name in ("warmup", "uniform-0", "weighted-0"):
        described = read_json(tmp_path / "checkpoints" / name / "run.json")
        assert described["train"]["learning_rate"] == tuning["chosen"]
    if tuning["chosen"] == 1e-3:
        assert metrics["test"] == read_json(finished / "metrics.json")["test"]
    assert "Learning rates tried" in (tmp_path / "report.html").read_text()
    # other rates are another question
    config.train.learning_rates = (1e-12, 1e-3)
    with pytest.raises(UserError, match=r"^stage tune .*--redo=tune"):
        run(config, tmp_path)
    before = workdirs.markers(tmp_path)
    run(config, tmp_path, "tune")
    # tuning.json has another content, and equal scores stay what they are
    again = {"tune", "score", "train/uniform-0", "train/weighted-0", "evaluate"}
    assert workdirs.made_since(tmp_path, before) == again


def test_learning_rates_all_of_which_diverge(tmp_path: Path) -> None:
    config = unexplained()
    config.train.learning_rates = (1e30,)
    with pytest.raises(NumericalError, match="no learning rate kept the loss finite"):
        run(config, tmp_path)
    assert not (tmp_path / "tuning.json").exists()
