"""Whole runs of tasks without classes: what they leave, what folders score, what is refused."""

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import checkpoints
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_runs
import transformers
from tiny_runs import run, tiny, unexplained, won_by

from sie_jax import importance, serving, tasks
from sie_jax.config import Config
from sie_jax.data import preparing, sentences
from sie_jax.errors import UserError
from sie_jax.files import read_json
from sie_jax.models import Towers
from sie_jax.recipes import relevance, replay
from sie_jax.stages.linear import fitted, folds_of, lists_of
from sie_jax.stages.pair_runs import Examples
from sie_jax.training.run import Run

pytestmark = pytest.mark.slow

# every loss of lists differs in its `couple` alone (tests/tasks); one of them goes through it all
WITHOUT_CLASSES = ("pairwise", "contrastive")


class Done(NamedTuple):
    config: Config
    workdir: Path
    metrics: dict[str, Any]
    said: str


def small(**importance: Any) -> Config:
    """With one layer: every task has programs of its own to compile."""
    config = unexplained(**importance)
    config.model.num_hidden_layers = 1
    return config


@pytest.fixture(scope="module", params=WITHOUT_CLASSES)
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Done:
    config = small()
    config.train.task, config.train.list_size = request.param, 4
    config.train.folds = 2
    config.model.features = request.param == "pairwise"
    workdir = tmp_path_factory.mktemp("task") / "run"
    said = io.StringIO()
    return Done(config, workdir, run(config, workdir, said=said), said.getvalue())


def test_runs_are_ranked_and_classify_nothing(done: Done) -> None:
    metrics = done.metrics
    for name in ("uniform", "weighted", "stack"):
        assert "accuracy" not in metrics["test"][name]
        assert 0 <= metrics["test"][name]["ndcg@10"]["value"] <= 1
    assert {"loss", "ndcg@10"} == metrics["train"]["uniform"].keys()
    assert "importance.level=query keeps it" in done.said
    assert metrics["contest"]["standings"].keys() >= {"uniform", "weighted", "stack"}
    assert not (done.workdir / "audit.csv").exists()
    assert "Labels most worth checking" not in (done.workdir / "report.html").read_text()


def test_every_pair_is_scored(done: Done) -> None:
    table = pq.read_table(done.workdir / "importance.parquet")
    names = [*tasks.scores(done.config.train.task), "weight"]
    assert table.column_names == ["example_id", "query_id", "item_id", "label", *names]
    assert table.num_rows == preparing.load(done.workdir).split("train").num_rows
    for name in ("grad_norm", "weight"):
        assert np.isfinite(table[name].to_numpy()).all()
        assert (table[name].to_numpy() >= 0).all()
    held_out = pq.read_table(done.workdir / "out_of_fold.parquet")
    assert "relevance" in held_out.column_names


@pytest.mark.parametrize("winner", ["uniform", "stack"])
def test_the_folder_alone_gives_the_scores_of_the_run(
    winner: str, done: Done, tmp_path: Path
) -> None:
    workdir = tmp_path / "run"
    won_by(winner, done.workdir, done.config, workdir)
    test = preparing.load(workdir).split("test")
    scored = serving.score(serving.load(workdir / "model"), test.to_pylist(), batch_size=16)
    wanted = pq.read_table(workdir / "rankings.parquet")[f"{winner}-0"].to_numpy()
    towers = done.config.train.task == "contrastive"
    # float32 sums in batches of another size; cosines are of order 1
    precision = 1e-6 if towers and winner == "uniform" else 1e-5
    np.testing.assert_allclose(scored["score"].to_numpy(), wanted, rtol=precision, atol=precision)
    assert "prediction" not in scored.column_names
    config = transformers.AutoConfig.from_pretrained(workdir / "model")
    card = (workdir / "model" / "README.md").read_text()
    if towers:
        assert config.architectures == ["BertModel"]
        assert "sentence-transformers alone gives" in card
        encoder = sentences.load(workdir / "model")
        assert encoder.notes == ()
        assert encoder.max_length == done.config.data.max_length
        if winner == "uniform":
            records = preparing.load(workdir).tokens("test").__getitems__(range(len(test)))
            sizes = [len(record["input_ids"]) for record in records]
            assert max(sizes) > encoder.max_length  # as a pair it would be cut
            texts = (test[name].to_pylist() for name in ("query", "title"))
            np.testing.assert_allclose(sentences.cosine(encoder, *texts), wanted, atol=1e-6)
    else:
        assert config.num_labels == 1
        assert "transformers alone gives" in card
        # the exported encoder's head takes features, which its folder does not have
        assert ("without them" if winner == "uniform" else "lacks the features") in card
        assert not (workdir / "model" / "head.json").exists()


@pytest.mark.parametrize("task", ["listwise", "regression"])
def test_a_head_starts_with_the_features_of_linear(task: str, tmp_path: Path) -> None:
    """As `linear` fitted on the rows that it takes or draws, beside what the encoder gives."""
    config = small()
    config.train.task, config.model.features = task, True
    with tiny_runs.opened(config, tmp_path / "run") as (workdir, start):
        start = replace(start, features=relevance.of_head(config, workdir, start.prepared))
        runs = tiny_runs.pair_runs(workdir, start, "uniform-0")
        rows, pairs = np.arange(60), runs.prepared.split("train").num_rows
        drawn = Examples(probabilities=np.where(np.arange(pairs) < 60, 1 / 60, 0))
        examples = drawn if task == "regression" else Examples(rows)
        one = Run("uniform-0", start.seed, start.train)
        state = runs.state(one, examples, total_steps=1)
        whole = runs.predicted(state.params, "test")["relevance"]
        kernel = state.params["features"]["kernel"]
        kernel.set_value(jnp.zeros_like(kernel[...]))
        found = whole - runs.predicted(state.params, "test")["relevance"]
        known = runs.features
        lists = lists_of(runs.prepared, "train", known.values["train"]).rows(rows)
        folds = folds_of(runs.prepared, "train", seed=0)[rows]
        linear = fitted(known.names, lists, folds).scores(known.names, known.values["test"])
    if task == "regression":  # as far from the gains as a line through 0 can be near them
        scores = fitted(known.names, lists, folds).scores(known.names, lists.features)
        linear = linear * np.linalg.lstsq(scores[:, None], lists.gains, rcond=None)[0]
    np.testing.assert_allclose(found, linear, rtol=1e-5, atol=1e-5)


def test_online_weights(tmp_path: Path) -> None:
    config = small(mode="online")
    config.train.task, config.train.list_size = "listwise", 4
    metrics = run(config, tmp_path / "run")
    assert metrics["cost"]["weighted"]["forward_equivalents"] > 0
    assert metrics["weights"] == {}


def test_another_task_is_another_run(done: Done) -> None:
    config = small()
    config.train.task, config.train.folds = "graded", 2
    with pytest.raises(UserError, match=r"--redo="):
        run(config, done.workdir)
    assert read_json(done.workdir / "checkpoints" / "uniform-0" / "run.json")["train"]["task"] in (
        WITHOUT_CLASSES
    )


def listed(**changes: Any) -> Callable[[Config], None]:
    def change(config: Config) -> None:
        config.train.task = "listwise"
        for name, value in changes.items():
            section, field = name.split("__")
            setattr(getattr(config, section), field, value)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (listed(train__task="ranked"), r"train\.task is 'ranked'"),
        (listed(train__list_size=1), r"train\.list_size is 1"),
        (listed(train__task="contrastive", train__temperature=0.0), r"train\.temperature is 0\.0"),
        (listed(train__task="contrastive", train__list_size=17), r"a device takes 16 pairs"),
        (listed(train__task="contrastive", importance__score="margin"), r"margin is not defined"),
        (listed(train__list_size=17), r"a device takes 16 pairs"),
        (listed(importance__score="el2n"), r"el2n is not defined for train\.task listwise"),
        (listed(importance__estimators=("tracin",)), r"tracin is not defined"),
        (
            listed(train__task="contrastive", model__features=True),
            r"model\.features .* contrastive reads query and item apart",
        ),
        (
            listed(train__task="graded", model__features=True),
            r"model\.features .* graded has an output for each grade",
        ),
        (listed(importance__mode="learned", importance__score="loss"), r"importance\.mode=learned"),
        (
            listed(importance__use="sampling", importance__mix_uniform=0.1),
            r"importance\.use=sampling",
        ),
    ],
)
def test_what_a_task_does_not_have_is_refused_before_anything_is_written(
    change: Callable[[Config], None], message: str, tmp_path: Path
) -> None:
    config = tiny()
    change(config)
    with pytest.raises(UserError, match=message) as caught:
        run(config, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_one_item_a_query_makes_no_list(tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    rows = [f"query {n},red lamp {n},{n % 2}" for n in range(60)]
    table.write_text("\n".join(["query,title,label", *rows]))
    config = small()
    config.data.source, config.data.path = "table", str(table)
    config.train.task = "listwise"
    with pytest.raises(UserError, match="no training query has two"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    # this learns of a pair by itself
    config.train.task = "regression"
    # of the candidates those are tried whose scores the task has
    config.importance.policy, config.importance.choosing_budget = "auto", 3.0
    found = run(config, tmp_path / "regression")["choosing"]["comparison"]
    assert {row["candidate"] for row in found} <= {"uniform", "grad_norm clipped", "loss inverse"}


def test_how_a_checkpoint_pools_is_read_assumed_and_said_or_refused(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint", ["red lamp", "blue shoe"])
    config, said = small(), io.StringIO()
    config.train.task, config.model.pretrained = "contrastive", str(folder)
    (folder / "1_Pooling").mkdir()
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(UserError, match="pooling by max_tokens") as caught:
        run(config, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
    shutil.rmtree(pooling.parent)
    run(config, tmp_path / "run", said=said)
    assert "the mean over tokens was assumed" in said.getvalue()
    towers, notes = Towers.from_pretrained(tmp_path / "run" / "models" / "uniform-0")
    assert (towers.pooling, notes) == ("mean", ())


@pytest.mark.parametrize("name", importance.ESTIMATORS)
def test_graded_has_every_estimator_and_lists_have_few(name: str) -> None:
    assert tasks.can_estimate("graded", name)
    wanted = {"grad_norm", "loss", "last_layer_norm", "knn_shapley", "query_agreement"}
    for task in ("listwise", "contrastive"):
        assert tasks.can_estimate(task, name) == (name in wanted)


def test_a_broken_batch_of_lists_is_explained(tmp_path: Path) -> None:
    from rich.console import Console

    from sie_jax.errors import NumericalError

    config = small()
    config.train.task, config.train.list_size = "listwise", 4
    config.train.learning_rate = 1e30
    with pytest.raises(NumericalError):
        run(config, tmp_path / "run")
    (kept,) = (tmp_path / "run" / "replay").glob("*.npz")
    table = replay.replay(kept, Console(file=io.StringIO()))
    assert table.column_names == ["example_id", "query", "title", "label", "loss", "grad_norm"]
