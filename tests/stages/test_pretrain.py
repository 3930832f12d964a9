"""Pretrain: what it leaves, what starts from it, and a resume."""

from pathlib import Path

import numpy as np
import pytest
import workdirs
from safetensors.numpy import load_file
from tiny_runs import run, unexplained

from sie_jax.config import Config
from sie_jax.data import tokenization
from sie_jax.files import read_json
from sie_jax.models import PairClassifier
from sie_jax.training.logs import MetricsLog

pytestmark = pytest.mark.slow


def with_pretraining() -> Config:
    """The tiny run after four steps of pretraining; learning so slow that it changes nothing."""
    config = unexplained()
    config.pretrain.steps, config.pretrain.evaluate_every = 4, 2
    config.pretrain.batch_size = 16
    config.train.learning_rate = 1e-12
    return config


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("pretrained") / "run"
    run(with_pretraining(), workdir)
    return workdir


def test_training_starts_from_the_pretrained_model(pretrained: Path) -> None:
    before = load_file(pretrained / "pretraining" / "model" / "model.safetensors")
    after = load_file(pretrained / "model" / "model.safetensors")
    shared = [name for name in before if name.startswith("bert.")]
    assert set(after) == {*shared, "classifier.weight", "classifier.bias"}
    for name in shared:
        np.testing.assert_allclose(after[name], before[name], rtol=0, atol=1e-9)
    model, _ = PairClassifier.from_pretrained(pretrained / "pretraining" / "model", num_labels=4)
    assert tokenization.load(pretrained / "pretraining" / "model").mask_token == "[MASK]"
    assert model.config.hidden_size == 16


def test_it_is_measured_on_texts_held_out(pretrained: Path) -> None:
    found = read_json(pretrained / "metrics.json")["pretraining"]
    assert found["steps"] == 4
    assert found["examples"] == 4 * 16
    assert found["rows"]["held_out"] == found["rows"]["measured"] > 0  # fewer than the sample
    assert found["before"]["perplexity"] > found["after"]["perplexity"] > 1
    spent = workdirs.costs(pretrained, "pretrain")
    assert found["seconds"] == sum(one["seconds"] for one in spent.values())
    assert spent["pretrain-0"]["forward_equivalents"] == 3 * 4 * 16
    curve = [line for line in workdirs.lines(pretrained) if "held_out_perplexity" in line]
    assert [line["step"] for line in curve] == [2, 4]
    assert curve[-1]["held_out_perplexity"] == found["after"]["perplexity"]
    assert "held-out perplexity" in (pretrained / "report.html").read_text()
    described = read_json(pretrained / "checkpoints" / "pretrain-0" / "run.json")
    assert described["train"]["task"] == "masked"


def test_pretraining_that_was_stopped_is_resumed(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, steps = MetricsLog.write, list[int]()

    def stop(log: MetricsLog, name: str, step: int, **values: float) -> None:
        if step == 4:
            raise KeyboardInterrupt
        write(log, name, step, **values)

    def done(log: MetricsLog, name: str, step: int, **values: float) -> None:
        if name == "warmup":  # pretraining is done
            raise KeyboardInterrupt
        steps.append(step)
        write(log, name, step, **values)

    for patched in (stop, done):
        monkeypatch.setattr(MetricsLog, "write", patched)
        with pytest.raises(KeyboardInterrupt):
            run(with_pretraining(), tmp_path)
        assert (tmp_path / "pretraining" / "held_out.json").exists() == (patched is done)
    assert steps
    assert min(steps) > 2  # the steps before are not trained again
    for name in ("model/model.safetensors", "corpus/rows.parquet"):
        ours, theirs = (one / "pretraining" / name for one in (tmp_path, pretrained))
        assert ours.read_bytes() == theirs.read_bytes(), name
    ours, theirs = (
        read_json(one / "pretraining" / "held_out.json") for one in (tmp_path, pretrained)
    )
    assert ours["after"] == theirs["after"]
    assert ours["examples"] == theirs["examples"]
