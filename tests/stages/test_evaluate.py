"""Evaluate: what is measured of the runs, what they cost, and files for trec_eval."""

import dataclasses
import io
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import pytrec_eval
import workdirs
from rich.console import Console
from tiny_runs import tiny

from sie_jax.config import as_json
from sie_jax.data import preparing
from sie_jax.devices import mesh as meshes
from sie_jax.files import read_json
from sie_jax.stages import evaluate
from sie_jax.workdir import Job, Workdir


def test_costs_count_examples_and_forward_passes(finished: Path) -> None:
    rows = read_json(finished / "cleaning.json")["splits"]["train"]
    cost = read_json(finished / "metrics.json")["cost"]
    assert cost["uniform"]["examples"] == rows
    assert cost["uniform"]["forward_equivalents"] == 3 * rows
    # training, the warm-up, and the scores: one forward pass and a backward of norms only
    assert cost["weighted"]["examples"] == rows + rows + rows
    assert cost["weighted"]["forward_equivalents"] == 3 * rows + 3 * rows + 2 * rows
    uniform = workdirs.costs(finished, "train/uniform-0")["uniform-0"]
    assert cost["uniform"] == uniform
    spent = [
        workdirs.costs(finished, "train/weighted-0")["weighted-0"],
        *(workdirs.costs(finished, "score")[name] for name in ("warmup", "score")),
    ]
    assert cost["weighted"]["seconds"] == pytest.approx(sum(one["seconds"] for one in spent))


def test_what_the_weights_amount_to(finished: Path) -> None:
    amounts = read_json(finished / "metrics.json")["weights"]
    assert list(amounts) == ["uniform", "weighted"]
    assert amounts["uniform"] == {
        "effective_sample_size": pytest.approx(1.0),
        "gradient_variance_ratio": pytest.approx(1.0),
    }
    table = pq.read_table(finished / "importance.parquet")
    w, norms = (table[name].to_numpy().astype(np.float64) for name in ("weight", "grad_norm"))
    # Σ_i g_i² / (N² p_i) against its value at p_i = 1/N; the weights are float32
    assert amounts["weighted"] == {
        "effective_sample_size": pytest.approx(w.mean() ** 2 / (w**2).mean(), rel=1e-5),
        "gradient_variance_ratio": pytest.approx(
            (norms**2 / w).mean() / (norms**2).mean(), rel=1e-5
        ),
    }
    assert '<section id="weights">' in (finished / "report.html").read_text(encoding="utf-8")


def test_training_metrics_are_those_that_each_run_left(finished: Path) -> None:
    trained = read_json(finished / "metrics.json")["train"]
    assert list(trained) == ["uniform", "weighted"]
    for name, values in trained.items():
        assert values == read_json(finished / "predictions" / f"{name}-0.json")["training"]
        assert 0 < values["accuracy"] < 1


def test_trec_eval_gives_the_metrics_as_the_docs_say(finished: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluating.md").read_text(encoding="utf-8")
    names = dict(re.findall(r"^\| `([^`]+)` \|.*\| `([^`]+)` \|$", page, flags=re.MULTILINE))
    commands = re.findall(r"^trec_eval (.+) \S+/trec/(\S+) \S+/trec/\S+$", page, re.MULTILINE)
    of_file = {
        measure: finished / "trec" / file
        for measures, file in commands
        for measure in re.findall(r"-m (\S+)", measures)
    }
    seeds = read_json(finished / "metrics.json")["seeds"]
    for run_name in ("uniform", "weighted"):
        ranked = (finished / "trec" / f"{run_name}-0.run").read_text().splitlines()
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
    finished: Path, tmp_path: Path
) -> None:
    prepared, out = preparing.load(finished), io.StringIO()
    scale = dataclasses.replace(prepared.scale, gains=(0.0, 0.1, 2**-0.5, 1.0))
    config = tiny()
    workdir = Workdir(
        tmp_path,
        meshes.make(1),
        Console(file=out, width=10_000),
        as_json(config),
        config.train,
        config.tracking,
    )
    evaluate._write_trec(Job(workdir, "evaluate"), prepared._replace(scale=scale), {})
    assert [path.name for path in (tmp_path / "trec").iterdir()] == ["qrels_highest_grade.txt"]
    assert "qrels.txt is left out: gains [0.0, 0.1, 0.7071" in out.getvalue()
