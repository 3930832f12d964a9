"""Train: what one run leaves, and how it weighs its examples."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
import workdirs
from tiny_runs import run, unexplained

from sie_jax.data import builders, preparing, tokenization
from sie_jax.files import read_json
from sie_jax.models import PairClassifier
from sie_jax.stages import running

pytestmark = pytest.mark.slow


def test_the_model_loads_again_and_predicts_the_same(finished: Path) -> None:
    folder, prepared = finished / "models" / "weighted-0", preparing.load(finished)
    model, report = PairClassifier.from_pretrained(folder)
    assert not report.initialised
    assert [model.config.id2label[i] for i in range(4)] == list("ICSE")
    test = prepared.split("test")
    stored = pq.read_table(finished / "predictions" / "weighted-0.parquet")
    wanted = np.stack([column.to_numpy() for column in stored.columns], 1)
    assert len(builders.read(finished / "data" / "tokens", "test")) == len(wanted)
    np.testing.assert_allclose(probabilities(model, folder, test), wanted, rtol=1e-4, atol=1e-6)


def test_the_validation_metrics_are_those_of_the_model(finished: Path) -> None:
    folder, prepared = finished / "models" / "weighted-0", preparing.load(finished)
    model, _ = PairClassifier.from_pretrained(folder)
    validation, gains = prepared.split("validation"), np.asarray(prepared.scale.gains)
    labels = validation["label"].to_numpy()
    predicted = probabilities(model, folder, validation)
    lines = workdirs.lines(finished)
    (logged,) = [x for x in lines if x["run"] == "weighted-0" and "validation_loss" in x]
    accuracy, loss = measured(predicted, labels)
    assert logged["validation_accuracy"] == pytest.approx(accuracy)
    assert logged["validation_loss"] == pytest.approx(loss, rel=1e-4)
    scores, of_queries = predicted @ gains, []
    for query in set(validation["query_id"].to_pylist()):
        mine = np.array([value == query for value in validation["query_id"].to_pylist()])
        by_score = gains[labels[mine][np.argsort(-scores[mine])]]
        best = np.sort(gains[labels[mine]])[::-1]
        dcg, ideal = (
            sum(gain / np.log2(rank + 2) for rank, gain in enumerate(ranked[:10]))
            for ranked in (by_score, best)
        )
        if ideal > 0:
            of_queries.append(dcg / ideal)
    assert logged["validation_ndcg@10"] == pytest.approx(np.mean(of_queries))


def test_training_metrics_are_those_of_the_model(finished: Path) -> None:
    folder, training = finished / "models" / "weighted-0", preparing.load(finished).split("train")
    model, _ = PairClassifier.from_pretrained(folder)
    accuracy, loss = measured(probabilities(model, folder, training), training["label"].to_numpy())
    left = read_json(finished / "predictions" / "weighted-0.json")["training"]
    assert left["accuracy"] == pytest.approx(accuracy)
    assert left["loss"] == pytest.approx(loss, rel=1e-4)


def measured(predicted: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Accuracy and mean loss."""
    given = predicted[np.arange(len(labels)), labels]
    return float((predicted.argmax(1) == labels).mean()), float(-np.log(given).mean())


def probabilities(model: PairClassifier, folder: Path, pairs: Any) -> np.ndarray:
    """As a user of the folder would compute them, without anything of the stages."""
    inputs = tokenization.load(folder)(
        pairs["query"].to_pylist(),
        pairs["title"].to_pylist(),
        truncation=True,  # the folder says where
        padding=True,
        return_tensors="np",
    )
    logits = model(inputs["input_ids"], inputs["token_type_ids"], inputs["attention_mask"])
    return np.asarray(jax.nn.softmax(logits))


def test_sampling_trains_on_drawn_batches_with_the_correction(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    fit = running.fit

    def spy(job: Any, run: Any, state: Any, step: Any, batches: Any, **options: Any) -> Any:
        seen[run.name] = [batches[i] for i in range(len(batches))]
        return fit(job, run, state, step, batches, **options)

    monkeypatch.setattr(running, "fit", spy)
    config = unexplained(
        use="sampling", policy="tempered", power=1.0, mix_uniform=0.2, balance="query"
    )
    metrics = run(config, tmp_path)
    assert metrics["test"]["uniform"] == read_json(finished / "metrics.json")["test"]["uniform"]
    described = read_json(tmp_path / "checkpoints" / "weighted-0" / "run.json")["weighting"]
    assert described == {"kind": "sampling", "score": "grad_norm", "policy": "tempered"}
    # in the table stands how often a row is expected in an epoch: N p
    expected = pq.read_table(tmp_path / "importance.parquet")["weight"].to_numpy()
    drawn, uniform = seen["weighted-0"], seen["uniform-0"]
    assert len(drawn) == len(uniform)
    for batch in drawn:
        assert batch["mask"].all()
        np.testing.assert_allclose(batch["weight"], 1 / expected[batch["row"]], rtol=1e-5)
        assert batch["weight"].max() <= 1 / 0.2 * (1 + 1e-5)
    rows = np.concatenate([batch["row"] for batch in drawn])
    assert len(set(rows.tolist())) < len(rows)  # drawn with replacement
