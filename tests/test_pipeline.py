import dataclasses
import functools
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
import pytrec_eval
from rich.console import Console
from safetensors.numpy import load_file

from sie_jax import importance, pipeline
from sie_jax.config import Config, as_json
from sie_jax.data import builders, preparing, tokenization
from sie_jax.devices import mesh as meshes
from sie_jax.errors import NumericalError, UserError
from sie_jax.evaluation import audit
from sie_jax.importance import choosing
from sie_jax.models import PairClassifier
from sie_jax.passes import explanation
from sie_jax.tables import hashing, parts, vectors
from sie_jax.training.logs import MetricsLog

pytestmark = pytest.mark.slow

CONTRACT = {
    "config.json",
    "cleaning.json",
    "rejected.parquet",
    "importance.parquet",
    "audit.csv",
    "metrics.json",
    "metrics.jsonl",
    "checkpoints",
    "model",
    "report.html",
}
METRICS = {"ndcg@10", "ndcg", "mrr", "recall@10", "accuracy", "macro_f1", "micro_f1"}
# of the folds, of the score pass, of the history, of the embeddings, of the checkpoints
ESTIMATED = (
    "reducible_loss",
    "last_layer_norm",
    "area_under_margin",
    "knn_shapley",
    "grand",
)
COLUMNS = {f"{kind}_{label}" for kind in ("precision", "recall") for label in "ICSE"}


def tiny(**changed: Any) -> Config:
    """Some 30 queries and a BERT of two layers, hidden 16; one padded length, to compile once."""
    config = Config(name="tiny")
    config.data.synthetic.queries = 30
    config.data.synthetic.items_per_query = 6
    config.data.synthetic.dirt = 0.1
    config.data.max_length = 24
    config.data.buckets = 1
    config.data.vocabulary_size = 200
    config.model.hidden_size = 16
    config.model.num_attention_heads = 2
    config.model.intermediate_size = 32
    config.train.batch_size = 16
    config.train.epochs = 1
    config.train.checkpoint_every = 3
    config.train.log_every = 2
    config.evaluation.resamples = 100
    config.importance = dataclasses.replace(config.importance, **changed)
    return config


def run(config: Config, workdir: Path) -> dict[str, Any]:
    return pipeline.run(config, workdir, console=Console(file=io.StringIO(), width=120))


@pytest.fixture(scope="module", autouse=True)
def compile_quickly() -> Iterator[None]:
    """The model is tiny: compiling it takes all the time, and optimising it gains none."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def finished(
    compile_quickly: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    del compile_quickly
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    return workdir, run(tiny(), workdir)


@pytest.fixture(scope="module")
def workdir(finished: tuple[Path, dict[str, Any]]) -> Path:
    return finished[0]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_file_of_the_contract_is_there(workdir: Path) -> None:
    assert {path.name for path in workdir.iterdir()} >= CONTRACT
    assert not list(workdir.rglob(".*.tmp"))
    assert read(workdir / "config.json") == as_json(tiny())
    assert (workdir / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_metrics_json(workdir: Path, finished: Any) -> None:
    metrics = read(workdir / "metrics.json")
    assert metrics == finished[1]
    rows = metrics["rows"]
    assert rows["read"] == rows["kept"] + rows["rejected"]
    assert rows["rejected"] == pq.read_table(workdir / "rejected.parquet").num_rows > 0
    runs = ["random", "token_overlap", "uniform", "weighted"]
    assert list(metrics["test"]) == runs
    assert set(metrics["difference"]) == set(runs) - {"uniform"}
    assert list(metrics["cost"]) == ["uniform", "weighted"]
    for trained in metrics["train"].values():
        assert list(trained) == ["loss", "accuracy", "ndcg@10"]  # whatever Python's hashes are
    for part in ("test", "difference"):
        for values in metrics[part].values():
            assert set(values) == METRICS | COLUMNS
            for estimate in values.values():
                assert set(estimate) == {"value", "low", "high"}
    for name in METRICS:
        for one in runs:
            estimate = metrics["test"][one][name]
            assert 0 <= estimate["low"] <= estimate["value"] <= estimate["high"] <= 1
            assert metrics["seeds"][one][name] == [pytest.approx(estimate["value"])]
        for one in metrics["difference"]:
            assert metrics["difference"][one][name]["value"] == pytest.approx(
                metrics["test"][one][name]["value"] - metrics["test"]["uniform"][name]["value"]
            )


def test_costs_count_examples_and_forward_passes(workdir: Path) -> None:
    rows = read(workdir / "cleaning.json")["splits"]["train"]
    cost = read(workdir / "metrics.json")["cost"]
    assert cost["uniform"]["examples"] == rows
    assert cost["uniform"]["forward_equivalents"] == 3 * rows
    # training, the warm-up, and the scores: one forward pass and a backward of norms only
    assert cost["weighted"]["examples"] == rows + rows + rows
    assert cost["weighted"]["forward_equivalents"] == 3 * rows + 3 * rows + 2 * rows
    clocks = {path.stem: read(path)["seconds"] for path in (workdir / "clocks").iterdir()}
    assert cost["uniform"]["seconds"] == clocks["uniform-0"]
    assert cost["weighted"]["seconds"] == pytest.approx(
        clocks["weighted-0"] + clocks["warmup"] + clocks["score"]
    )


def test_importance_parquet(workdir: Path) -> None:
    table = pq.read_table(workdir / "importance.parquet")
    assert table.column_names == [
        *("example_id", "query_id", "item_id", "label"),
        *importance.SCORES,
        "weight",
    ]
    training = preparing.load(workdir).split("train")
    for name in ("example_id", "query_id", "item_id", "label"):
        assert table[name].to_pylist() == training[name].to_pylist()
    weight = table["weight"].to_numpy()
    assert weight.dtype == np.float32
    assert weight.astype(np.float64).mean() == pytest.approx(1.0, rel=1e-6)
    norms = jnp.asarray(table["grad_norm"].to_numpy())
    wanted = importance.policies.Clipped()(norms) * len(weight)
    np.testing.assert_allclose(weight, wanted, rtol=1e-6)


def test_audit_ranks_the_training_pairs(workdir: Path) -> None:
    table = pq.read_table(workdir / "importance.parquet")
    rows = audit.read(workdir / "audit.csv", most=table.num_rows + 1)
    assert [int(row["rank"]) for row in rows] == list(range(1, table.num_rows + 1))
    losses = dict(zip(table["example_id"].to_pylist(), table["loss"].to_pylist(), strict=True))
    assert {row["example_id"] for row in rows} == set(losses)
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    # the loss is −log of the label's probability; float32 holds neither beyond its 24 bits
    np.testing.assert_allclose(
        scores, [-np.expm1(-losses[row["example_id"]]) for row in rows], rtol=1e-5, atol=1e-6
    )
    assert {row["label"] for row in rows} | {row["prediction"] for row in rows} <= set("ICSE")


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with three folds, whose score is of these folds, and further estimators."""
    config = tiny(score="reducible_loss", estimators=tuple(ESTIMATED[1:]))
    workdir = tmp_path_factory.mktemp("folded")
    config.train.folds = 3
    config.evaluation.explained_queries = 0
    run(config, workdir)
    return workdir


def test_folds_score_every_pair_and_hold_queries_apart(folded: Path) -> None:
    prepared, held = preparing.load(folded), pq.read_table(folded / "out_of_fold.parquet")
    ids = held["example_id"].to_pylist()
    assert sorted(ids) == sorted(prepared.pairs["example_id"].to_pylist())
    fold = dict(zip(ids, held["fold"].to_pylist(), strict=True))
    of_query: dict[str, set[int]] = {}
    for row in prepared.pairs.to_pylist():
        assert (fold[row["example_id"]] >= 0) == (row["split"] == "train")
        of_query.setdefault(row["query_id"], set()).add(fold[row["example_id"]])
    assert all(len(folds) == 1 for folds in of_query.values())
    assert set(fold.values()) == {-1, 0, 1, 2}
    probabilities = np.stack([held[f"probability_{i}"].to_numpy() for i in range(4)], 1)
    np.testing.assert_allclose(probabilities.sum(1), 1.0, rtol=1e-5)
    # the loss is −log of the label's probability, by which the rows are seen to belong together
    training = np.flatnonzero(held["fold"].to_numpy() >= 0)
    labels = held["label"].to_numpy()
    np.testing.assert_allclose(
        held["loss"].to_numpy()[training],
        -np.log(probabilities[training, labels[training]]),
        rtol=1e-4,
        atol=1e-6,
    )


def test_the_audit_of_a_run_with_folds_has_every_pair(folded: Path) -> None:
    held = pq.read_table(folded / "out_of_fold.parquet")
    rows = audit.read(folded / "audit.csv", most=held.num_rows + 1)
    assert len(rows) == held.num_rows
    assert {row["split"] for row in rows} == {"train", "validation", "test"}
    columns = np.stack([held[f"probability_{i}"].to_numpy() for i in range(4)], 1)
    given = columns[np.arange(len(columns)), held["label"].to_numpy()]
    label_probability = dict(zip(held["example_id"].to_pylist(), given.tolist(), strict=True))
    for row in rows:  # the same float32 values: nothing rounds on the way
        assert float(row["label_probability"]) == label_probability[row["example_id"]]
    metrics = json.loads((folded / "metrics.json").read_text())
    assert set(metrics["cross_validation"]) == METRICS | COLUMNS


def test_a_fold_model_has_not_seen_its_fold(folded: Path) -> None:
    lines = [json.loads(line) for line in (folded / "metrics.jsonl").read_text().splitlines()]
    held = pq.read_table(folded / "out_of_fold.parquet")["fold"].to_numpy()
    for number in range(3):
        steps = max(line["step"] for line in lines if line["run"] == f"fold-{number}")
        others = ((held >= 0) & (held != number)).sum()
        assert steps == -(-others // 16)


def test_estimators_asked_for_are_in_the_table_and_say_where_they_come_from(folded: Path) -> None:
    path, training = folded / "importance.parquet", preparing.load(folded).split("train")
    table, held = pq.read_table(path), pq.read_table(folded / "out_of_fold.parquet")
    scores = [*importance.SCORES, *ESTIMATED]
    assert table.column_names[4:] == [*scores, "weight"]
    unseen = held["loss"].to_numpy()[held["fold"].to_numpy() >= 0]
    np.testing.assert_allclose(
        table["reducible_loss"].to_numpy(), table["loss"].to_numpy() - unseen, rtol=1e-4, atol=1e-5
    )
    # the mean norm over the checkpoints, of which there is one; two ways to it, in float32
    np.testing.assert_allclose(table["grand"].to_numpy(), table["grad_norm"].to_numpy(), rtol=1e-4)
    origin = parts.provenance(path)
    assert list(origin) == [*scores, "weight"]
    assert [one.score for one in origin.values()] == [*scores, "clipped"]
    version = hashing.data_version(training)
    assert {(one.seed, one.data_version) for one in origin.values()} == {(0, version)}
    planted = read(folded / "metrics.json")["planted_errors"]
    assert set(planted["auroc"]) >= set(scores)


def test_vectors_are_left_beside_the_table(folded: Path) -> None:
    table, stored = pq.read_table(folded / "importance.parquet"), folded / "vectors"
    assert set(parts.provenance(stored)) == {"layer_norms", "margins", "embedding"}
    ids = table["example_id"]
    (found,) = vectors.in_order(stored, ids, columns=["layer_norms", "margins", "embedding"])
    norms = np.linalg.norm(found["layer_norms"], axis=1)
    np.testing.assert_allclose(norms, table["grad_norm"].to_numpy(), rtol=1e-5)
    assert found["embedding"].shape == (len(ids), 16)
    # of one epoch: its margin is the area under it
    np.testing.assert_array_equal(found["margins"][:, 0], table["area_under_margin"].to_numpy())


def test_a_score_of_folds_costs_their_training_too(folded: Path) -> None:
    rows = read(folded / "cleaning.json")["splits"]["train"]
    cost = read(folded / "metrics.json")["cost"]["weighted"]
    # training, the warm-up and the scores; every fold's training on the two others, and its scores.
    # What is estimated to be looked at alone is not charged
    folds = 2 * 3 * rows + 2 * rows
    assert cost["forward_equivalents"] == 3 * rows + 3 * rows + 2 * rows + folds
    clocks = {path.stem: read(path)["seconds"] for path in (folded / "clocks").iterdir()}
    names = ["weighted-0", "warmup", "score"]
    names += [f"fold-{number}{work}" for number in range(3) for work in ("", "-train")]
    assert cost["seconds"] == pytest.approx(sum(clocks[name] for name in names))


def test_what_the_weights_amount_to(workdir: Path) -> None:
    amounts = read(workdir / "metrics.json")["weights"]
    assert list(amounts) == ["uniform", "weighted"]
    assert amounts["uniform"] == {
        "effective_sample_size": pytest.approx(1.0),
        "gradient_variance_ratio": pytest.approx(1.0),
    }
    table = pq.read_table(workdir / "importance.parquet")
    w, norms = (table[name].to_numpy().astype(np.float64) for name in ("weight", "grad_norm"))
    # Σ_i g_i² / (N² p_i) against its value at p_i = 1/N; the weights are float32
    assert amounts["weighted"] == {
        "effective_sample_size": pytest.approx(w.mean() ** 2 / (w**2).mean(), rel=1e-5),
        "gradient_variance_ratio": pytest.approx(
            (norms**2 / w).mean() / (norms**2).mean(), rel=1e-5
        ),
    }
    assert '<section id="weights">' in (workdir / "report.html").read_text(encoding="utf-8")


def test_the_worst_queries_are_explained(workdir: Path, folded: Path) -> None:
    table, prepared = pq.read_table(workdir / "explanations.parquet"), preparing.load(workdir)
    assert table.schema.equals(explanation.SCHEMA)
    test = prepared.split("test")
    query = dict(zip(test["example_id"].to_pylist(), test["query_id"].to_pylist(), strict=True))
    explained = set(table["example_id"].to_pylist())
    assert 0 < len(explained) <= tiny().evaluation.explained_queries
    assert len({query[one] for one in explained}) == len(explained), "a pair of each query"
    for push in table.to_pylist():
        assert push["direction"] == ("for" if push["influence"] > 0 else "against")
        assert 0 <= push["row"] < prepared.split("train").num_rows
    assert not (workdir / "projections").exists()
    section = '<section id="explanations">'
    assert section in (workdir / "report.html").read_text(encoding="utf-8")
    # where no query is to be explained
    assert not (folded / "explanations.parquet").exists()
    assert section not in (folded / "report.html").read_text(encoding="utf-8")


def test_a_table_of_other_data_is_refused(workdir: Path, tmp_path: Path) -> None:
    for name in ("data", "config.json", "cleaning.json"):
        copy = shutil.copytree if (workdir / name).is_dir() else shutil.copy
        copy(workdir / name, tmp_path / name)
    table = pq.read_table(workdir / "importance.parquet")
    found = hashing.data_version(preparing.load(workdir).split("train"))
    metadata = {k: v.replace(found.encode(), b"0" * 64) for k, v in table.schema.metadata.items()}
    path = tmp_path / "importance.parquet"
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(UserError, match=rf"^{path}: was computed on data 0{{12}}, .* score again"):
        run(tiny(), tmp_path)


@pytest.fixture(scope="module")
def automatic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that chose its score and policy."""
    config, workdir = auto(6.0), tmp_path_factory.mktemp("automatic")
    run(config, workdir)
    return workdir


def auto(budget: float) -> Config:
    config = tiny(policy="auto", choosing_budget=budget)
    config.evaluation.explained_queries = 0
    return config


def test_auto_chooses_within_its_budget_and_is_charged_for_it(automatic: Path) -> None:
    metrics, choice = read(automatic / "metrics.json"), read(automatic / "choosing.json")
    assert metrics["choosing"] == choice
    candidates = {one.name: one for one in (choosing.UNIFORM, *choosing.CANDIDATES)}
    tried = {row["candidate"] for row in choice["comparison"]}
    assert tried == {"uniform", *(one.name for one in choosing.CANDIDATES[: len(tried) - 1])}
    better = choice["interval"]["low"] is not None and choice["interval"]["low"] > 0
    chosen = candidates[choice["chosen"]["name"]]
    assert chosen.name == (choice["contender"]["name"] if better else "uniform")
    cost, rows = choice["cost"], read(automatic / "cleaning.json")["splits"]["train"]
    assert cost["budget"] == 6.0
    # a sum of shares: within the budget but for rounding in its last digits
    assert 0 < cost["spent"] <= 6.0 * (1 + 1e-12)
    charged = {name: one["forward_equivalents"] for name, one in metrics["cost"].items()}
    assert charged["uniform"] == 3 * rows
    # one full training is 3 forward passes over the rows; of examples there is a whole number
    wanted = 8 * rows + cost["spent"] * 3 * rows
    assert charged["weighted"] == pytest.approx(wanted, abs=3)
    table = pq.read_table(automatic / "importance.parquet")
    scores = importance.hardness(chosen.score, table[chosen.score].to_numpy())
    weights = chosen.policy(jnp.asarray(scores))
    np.testing.assert_allclose(table["weight"].to_numpy(), weights * rows, rtol=1e-5)
    assert parts.provenance(automatic / "importance.parquet")["weight"].score == chosen.policy.name
    assert '<section id="choosing">' in (automatic / "report.html").read_text(encoding="utf-8")


def test_choosing_that_was_stopped_repeats_no_run(
    automatic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("data", "choosing", "config.json", "cleaning.json"):
        copy = shutil.copytree if (automatic / name).is_dir() else shutil.copy
        copy(automatic / name, tmp_path / name)
    line = pipeline.prepare(auto(6.0), tmp_path, meshes.make(), Console(file=io.StringIO()))
    monkeypatch.setattr(pipeline, "fit_run", None)  # nothing can be trained
    assert pipeline.choose(line).config.importance.policy != "auto"
    assert read(tmp_path / "choosing.json") == read(automatic / "choosing.json")


def test_learned_weights_are_charged_their_validation_pairs(workdir: Path, tmp_path: Path) -> None:
    config = tiny(mode="learned", score="loss")
    config.evaluation.explained_queries = 0
    metrics = run(config, tmp_path)
    theirs = read(workdir / "metrics.json")
    assert metrics["test"]["uniform"] == theirs["test"]["uniform"]
    assert metrics["weights"] == {}
    splits = read(tmp_path / "cleaning.json")["splits"]
    held = [min(16, splits["validation"] - start) for start in range(0, splits["validation"], 16)]
    steps = -(-splits["train"] // 16)
    examples = splits["train"] + sum(held[step % len(held)] for step in range(steps))
    cost = metrics["cost"]["weighted"]
    assert (cost["examples"], cost["forward_equivalents"]) == (examples, 3 * examples)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    theta = [x for x in lines if x["run"] == "weighted-0" and "theta_loss" in x]
    assert [x["step"] for x in theta] == list(range(2, steps + 1, 2))
    assert all({"theta_threshold", "agreement", "validation_loss"} <= x.keys() for x in theta)
    assert theta[-1]["theta_loss"] != 0


def test_metrics_jsonl_has_the_curves_of_every_run(workdir: Path) -> None:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for name in ("warmup", "uniform-0", "weighted-0"):
        mine = [line for line in lines if line["run"] == name]
        assert [line["step"] for line in mine] == sorted(line["step"] for line in mine)
        assert any("loss" in line for line in mine)
        assert sum("validation_loss" in line for line in mine) == 1


def test_the_model_loads_again_and_predicts_the_same(workdir: Path) -> None:
    folder, prepared = workdir / "model", preparing.load(workdir)
    model, report = PairClassifier.from_pretrained(folder)
    assert not report.initialised
    assert [model.config.id2label[i] for i in range(4)] == list("ICSE")
    test = prepared.split("test")
    stored = pq.read_table(workdir / "predictions" / "weighted-0.parquet")
    wanted = np.stack([column.to_numpy() for column in stored.columns], 1)
    assert len(builders.read(workdir / "data" / "tokens", "test")) == len(wanted)
    np.testing.assert_allclose(probabilities(model, folder, test), wanted, rtol=1e-4, atol=1e-6)


def test_the_validation_metrics_are_those_of_the_model(workdir: Path) -> None:
    folder, prepared = workdir / "model", preparing.load(workdir)
    model, _ = PairClassifier.from_pretrained(folder)
    validation, gains = prepared.split("validation"), np.asarray(prepared.scale.gains)
    labels = validation["label"].to_numpy()
    predicted = probabilities(model, folder, validation)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    (logged,) = [x for x in lines if x["run"] == "weighted-0" and "validation_loss" in x]
    accuracy = (predicted.argmax(1) == labels).mean()
    loss = -np.log(predicted[np.arange(len(labels)), labels]).mean()
    assert logged["validation_accuracy"] == pytest.approx(accuracy)
    assert logged["validation_loss"] == pytest.approx(loss, rel=1e-4)

    scores = predicted @ gains
    of_queries = []
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


def probabilities(model: PairClassifier, folder: Path, pairs: Any) -> np.ndarray:
    """As a user of the folder would compute them, without anything of the pipeline."""
    inputs = tokenization.load(folder)(
        pairs["query"].to_pylist(),
        pairs["title"].to_pylist(),
        truncation="only_second",
        max_length=24,
        padding=True,
        return_tensors="np",
    )
    logits = model(inputs["input_ids"], inputs["token_type_ids"], inputs["attention_mask"])
    return np.asarray(jax.nn.softmax(logits))


def test_trec_eval_gives_the_metrics_as_the_docs_say(workdir: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "evaluating.md").read_text(encoding="utf-8")
    names = dict(re.findall(r"^\| `([^`]+)` \|.*\| `([^`]+)` \|$", page, flags=re.MULTILINE))
    commands = re.findall(r"^trec_eval (.+) \S+/trec/(\S+) \S+/trec/\S+$", page, re.MULTILINE)
    of_file = {
        measure: workdir / "trec" / file
        for measures, file in commands
        for measure in re.findall(r"-m (\S+)", measures)
    }
    seeds = read(workdir / "metrics.json")["seeds"]
    for run_name in ("uniform", "weighted"):
        ranked = (workdir / "trec" / f"{run_name}-0.run").read_text().splitlines()
        assert {line.split()[5] for line in ranked} == {f"{run_name}-0"}
        for metric in ("ndcg@10", "ndcg", "mrr", "recall@10"):
            measure = names[metric]
            judged = pytrec_eval.parse_qrel(of_file[measure].read_text().splitlines())
            found = pytrec_eval.RelevanceEvaluator(judged, {measure}).evaluate(
                pytrec_eval.parse_run(ranked)
            )
            values = [of_query[measure.replace(".", "_")] for of_query in found.values()]
            # Rax computes in float32
            assert seeds[run_name][metric] == [pytest.approx(np.mean(values), abs=3e-6)]


def test_gains_that_trec_eval_cannot_read_leave_out_their_file_alone(
    workdir: Path, tmp_path: Path
) -> None:
    prepared, out = preparing.load(workdir), io.StringIO()
    scale = dataclasses.replace(prepared.scale, gains=(0.0, 0.1, 2**-0.5, 1.0))
    line = pipeline.Line(
        tiny(), tmp_path, None, Console(file=out), prepared._replace(scale=scale), None
    )
    pipeline._write_trec(line, prepared.split("test"), {})
    assert [path.name for path in (tmp_path / "trec").iterdir()] == ["qrels_highest_grade.txt"]
    assert "qrels.txt is left out: gains [0.0, 0.1, 0.7071" in out.getvalue()


def test_one_config_two_workdirs_the_same_bits(workdir: Path, tmp_path: Path) -> None:
    again = run(tiny(), tmp_path / "again")
    theirs = read(workdir / "metrics.json")
    assert again["test"] == theirs["test"]
    assert again["difference"] == theirs["difference"]
    assert pq.read_table(tmp_path / "again" / "importance.parquet").equals(
        pq.read_table(workdir / "importance.parquet")
    )
    for name in ("model/model.safetensors", "audit.csv", "metrics.jsonl", "cleaning.json"):
        assert (tmp_path / "again" / name).read_bytes() == (workdir / name).read_bytes(), name


def test_a_finished_run_is_left_alone(workdir: Path) -> None:
    def state() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}

    before = state()
    assert run(tiny(), workdir) == read(workdir / "metrics.json")
    assert state() == before


def test_a_workdir_of_another_config_is_refused(workdir: Path) -> None:
    config = tiny()
    config.train.epochs = 2
    with pytest.raises(UserError, match=r"different config \(train\.epochs 1, not 2\)"):
        run(config, workdir)


def test_online_weights_and_further_policies(workdir: Path, tmp_path: Path) -> None:
    config = tiny(mode="online", score="el2n", compare=("proportional",), mix_uniform=0.1)
    metrics = run(config, tmp_path / "online")
    assert list(metrics["test"])[2:] == ["uniform", "weighted", "proportional"]
    cost = metrics["cost"]
    for one in ("weighted", "proportional"):  # no scoring pass is charged to them
        assert cost[one]["forward_equivalents"] == cost["uniform"]["forward_equivalents"]
    theirs = read(workdir / "metrics.json")
    assert metrics["test"]["uniform"] == theirs["test"]["uniform"]
    predictions = [
        pq.read_table(tmp_path / "online" / "predictions" / f"{one}-0.parquet")
        for one in ("uniform", "weighted", "proportional")
    ]
    assert not predictions[1].equals(predictions[0])
    assert not predictions[1].equals(predictions[2])


@pytest.mark.parametrize(("balance", "column"), [("class", "label"), ("query", "query_id")])
def test_weights_are_balanced_and_mixed_as_the_config_says(
    workdir: Path, balance: str, column: str
) -> None:
    prepared = preparing.load(workdir)
    table = pq.read_table(workdir / "importance.parquet")
    config = tiny(balance=balance, mix_uniform=0.25, power=2.0, keep_fraction=0.5)
    line = pipeline.Line(config, workdir, None, Console(quiet=True), prepared, None)
    norms, rows = table["grad_norm"].to_numpy(), table.num_rows
    groups, of_row = np.unique(table[column].to_pylist(), return_inverse=True)
    made = pipeline._weights(line, norms, "tempered")
    values = norms.astype(np.float64) ** 2
    counts = np.bincount(of_row) / rows
    wanted = 0.75 * values * counts[of_row] / np.bincount(of_row, values)[of_row] + 0.25 / rows
    # float32 sums of some hundred terms
    np.testing.assert_allclose(made, wanted, rtol=1e-4)
    assert len(groups) > 1
    config.importance.balance, config.importance.mix_uniform = "", 0.0
    lowest, highest = (
        set(np.flatnonzero(pipeline._weights(line, norms, name)))
        for name in ("keep", "keep_hardest")
    )
    assert lowest | highest == set(range(rows))
    assert norms[list(lowest)].max() <= norms[list(highest)].min()


def test_sampling_trains_on_drawn_batches_with_the_correction(
    workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    fit = pipeline.fit

    def spy(name: str, state: Any, step: Any, batches: Any, **options: Any) -> Any:
        seen[name] = [batches[i] for i in range(len(batches))]
        return fit(name, state, step, batches, **options)

    monkeypatch.setattr(pipeline, "fit", spy)
    config = tiny(use="sampling", policy="tempered", power=1.0, mix_uniform=0.2, balance="query")
    metrics = run(config, tmp_path)
    theirs = read(workdir / "metrics.json")
    assert metrics["test"]["uniform"] == theirs["test"]["uniform"]
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


def with_pretraining() -> Config:
    """The tiny run after four steps of pretraining; learning so slow that it changes nothing."""
    config = tiny()
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


def test_pretraining_is_measured_on_texts_held_out(pretrained: Path) -> None:
    found = read(pretrained / "metrics.json")["pretraining"]
    assert found["steps"] == 4
    assert found["examples"] == 4 * 16
    assert found["rows"]["held_out"] == found["rows"]["measured"] > 0  # fewer than the sample
    assert found["before"]["perplexity"] > found["after"]["perplexity"] > 1
    lines = [json.loads(line) for line in (pretrained / "metrics.jsonl").read_text().splitlines()]
    curve = [line for line in lines if "held_out_perplexity" in line]
    assert [line["step"] for line in curve] == [2, 4]
    assert curve[-1]["held_out_perplexity"] == found["after"]["perplexity"]
    assert "held-out perplexity" in (pretrained / "report.html").read_text()


def test_pretraining_that_was_stopped_goes_on(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = MetricsLog.write

    def stop(log: MetricsLog, name: str, step: int, **values: float) -> None:
        if step == 4:
            raise KeyboardInterrupt
        write(log, name, step, **values)

    line = functools.partial(
        pipeline.prepare, with_pretraining(), tmp_path, meshes.make(), Console(file=io.StringIO())
    )
    with monkeypatch.context() as patched:
        patched.setattr(MetricsLog, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            pipeline.pretrain(line())
    assert not (tmp_path / "pretraining" / "held_out.json").exists()
    pipeline.pretrain(line())
    for name in ("model/model.safetensors", "corpus/rows.parquet"):
        ours, theirs = (one / "pretraining" / name for one in (tmp_path, pretrained))
        assert ours.read_bytes() == theirs.read_bytes(), name
    ours, theirs = (read(one / "pretraining" / "held_out.json") for one in (tmp_path, pretrained))
    assert ours["after"] == theirs["after"]
    assert ours["examples"] == theirs["examples"]


def test_the_best_learning_rate_on_validation_queries_is_taken(
    workdir: Path, tmp_path: Path
) -> None:
    """Of one that learns nothing, the tiny run's own, and one at which the loss overflows."""
    config = tiny()
    config.train.learning_rates, config.train.learning_rate = (1e-12, 1e-3, 1e30), 0.5
    metrics = run(config, tmp_path)
    tuning = metrics["tuning"]
    assert tuning["diverged"] == [1e30]
    merits = {
        float(rate): (found["ndcg@10"]["value"], found["accuracy"]["value"])
        for rate, found in tuning["validation"].items()
    }
    assert set(merits) == {1e-12, 1e-3}
    assert tuning["chosen"] == max(merits, key=lambda rate: merits[rate])
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    (at_rate,) = [x for x in logged if x["run"] == "rate_0.001" and "validation_loss" in x]
    assert at_rate["validation_ndcg@10"] == pytest.approx(merits[1e-3][0])
    (uniform,) = [x for x in logged if x["run"] == "uniform-0" and "validation_loss" in x]
    assert uniform["validation_ndcg@10"] == pytest.approx(merits[tuning["chosen"]][0])
    if tuning["chosen"] == 1e-3:
        assert metrics["test"] == read(workdir / "metrics.json")["test"]
    assert "Learning rates tried" in (tmp_path / "report.html").read_text()


def test_learning_rates_all_of_which_diverge(tmp_path: Path) -> None:
    config = tiny()
    config.train.learning_rates = (1e30,)
    with pytest.raises(NumericalError, match="no learning rate kept the loss finite"):
        run(config, tmp_path)
    assert not (tmp_path / "tuning.json").exists()


def nothing_fits(config: Config) -> None:
    """With a vocabulary of little more than letters, every query fills eight tokens."""
    config.data.vocabulary_size, config.data.max_length = 100, 8


def too_many_folds(config: Config) -> None:
    config.importance.policy, config.importance.choosing_folds = "auto", 99


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: setattr(config.train, "batch_size", 0), r"train\.batch_size"),
        (lambda config: setattr(config.data, "gains", (0.0, 1.0)), "gains|label scale"),
        (nothing_fits, r"data\.max_length"),
        (lambda config: setattr(config.model, "pretrained", "nowhere"), "nowhere"),
        (lambda config: setattr(config.mesh, "data", 512), r"mesh\.data"),
        (lambda config: setattr(config.data.synthetic, "noise_kind", "evil"), "noise_kind"),
        (
            lambda config: setattr(config, "importance", auto(0.5).importance),
            r"importance\.choosing_budget: a budget of 0\.5 .* too small",
        ),
        (too_many_folds, r"importance\.choosing_folds: 99 folds of"),
    ],
)
def test_what_the_user_can_mend_ends_the_run_before_anything_is_written(
    tmp_path: Path, change: Callable[[Config], None], message: str
) -> None:
    config = tiny()
    change(config)
    with pytest.raises(UserError, match=message) as caught:
        run(config, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
