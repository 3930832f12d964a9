"""Score: the table of scores, where they come from, the vectors and what they cost."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import workdirs
from tiny_runs import ESTIMATED

from sie_jax import importance
from sie_jax.data import preparing
from sie_jax.data.schema import ATTRIBUTE
from sie_jax.files import read_json
from sie_jax.stages import score
from sie_jax.tables import hashing, parts, vectors

pytestmark = pytest.mark.slow


def test_scores_parquet_has_the_training_pairs_in_order(finished: Path) -> None:
    table, training = pq.read_table(finished / "scores.parquet"), preparing.load(finished)
    for name in ("example_id", "query_id", "item_id", "label"):
        assert table[name].to_pylist() == training.split("train")[name].to_pylist()
    columns = set(table.column_names[4:])
    assert columns >= {*importance.SCORES, "last_layer_norm"}
    probabilities = [f"probability_{grade}" for grade in range(4)]
    assert columns >= set(probabilities)
    assert {table.schema.field(name).type for name in columns} == {pa.float32()}
    stacked = np.stack([table[name].to_numpy() for name in probabilities], 1)
    np.testing.assert_allclose(stacked.sum(1), 1.0, rtol=1e-5)
    given = stacked[np.arange(len(stacked)), table["label"].to_numpy()]
    np.testing.assert_allclose(table["loss"].to_numpy(), -np.log(given), rtol=1e-4, atol=1e-6)


def test_scores_json_says_where_they_come_from(finished: Path, folded: Path) -> None:
    origin, other = (read_json(folder / "scores.json") for folder in (finished, folded))
    assert set(origin) == {"checkpoint", "seed", "data_version", "config"}
    training = preparing.load(finished).split("train")
    assert origin["data_version"] == hashing.data_version(training)
    assert origin["seed"] == 0
    # the warm-up is the same run; what is made of it is not
    assert origin["checkpoint"] == other["checkpoint"]
    assert origin["config"] != other["config"]


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
    planted = read_json(folded / "metrics.json")["planted_errors"]
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


def test_the_warm_up_keeps_every_visit(finished: Path) -> None:
    files = sorted((finished / "checkpoints" / "warmup" / "history").iterdir())
    visits = pa.concat_tables([pq.read_table(file) for file in files])
    rows = read_json(finished / "cleaning.json")["splits"]["train"]
    assert sorted(visits["row"].to_pylist()) == list(range(rows))
    assert not (finished / "checkpoints" / "uniform-0" / "history").exists()


def test_passes_count_their_examples(folded: Path) -> None:
    splits = read_json(folded / "cleaning.json")["splits"]
    rows, costs = splits["train"], workdirs.costs(folded, "score")
    assert costs["warmup"]["examples"] == costs["score"]["examples"] == rows
    assert costs["warmup"]["forward_equivalents"] == 3 * rows
    assert costs["score"]["forward_equivalents"] == 2 * rows
    # the embeddings of both splits, at a forward pass each, and the norms at the one checkpoint
    others = {name: one for name, one in costs.items() if name not in ("warmup", "score")}
    assert sum(one["examples"] for one in others.values()) >= rows + splits["validation"]
    assert all(one["examples"] > 0 for one in others.values())
    assert all(one["forward_equivalents"] > 0 for one in others.values())


def test_a_score_of_folds_costs_their_training_too(folded: Path) -> None:
    rows = read_json(folded / "cleaning.json")["splits"]["train"]
    cost = read_json(folded / "metrics.json")["cost"]["weighted"]
    # training, the warm-up and the scores; every fold's training on the two others, and its scores.
    # What is estimated to be looked at alone is not charged
    folds = 2 * 3 * rows + 2 * rows
    assert cost["forward_equivalents"] == 3 * rows + 3 * rows + 2 * rows + folds
    assert cost["examples"] == rows + rows + rows + 2 * rows + rows
    spent = [
        workdirs.costs(folded, "train/weighted-0")["weighted-0"],
        *(workdirs.costs(folded, "score")[name] for name in ("warmup", "score")),
        *(
            workdirs.costs(folded, "cross_fit")[name]
            for number in range(3)
            for name in (f"fold-{number}", f"scores-{number}-train")
        ),
    ]
    assert cost["seconds"] == pytest.approx(sum(one["seconds"] for one in spent))


def test_groups_are_of_attributes_or_of_queries() -> None:
    table = pa.table(
        {
            "query_id": ["q1", "q1", "q2", "q1"],
            ATTRIBUTE + "who": ["a", None, "b", ""],
            ATTRIBUTE + "of": ["x", "y", None, None],
        }
    )
    queries, annotators, sellers = score.groups_of(table, "", "of")
    assert queries.tolist() == ["q1", "q1", "q2", "q1"]
    assert annotators is None
    assert len({*sellers.tolist()}) == 4, "those without a seller are nobody's"
    assert sellers[:2].tolist() == ["x", "y"]
    _, annotators, sellers = score.groups_of(table, "who", "")
    assert np.unique(annotators, return_inverse=True)[1].tolist() == [1, 0, 2, 0]
    assert sellers is None
