from pathlib import Path

import numpy as np
import pytest

from sie_jax.data.features import Pairs, standardised
from sie_jax.evaluation.retrieval import NOTHING
from sie_jax.models.ranker import BLEND, LINEAR, TREES
from sie_jax.retrieval import candidates
from sie_jax.retrieval.candidates import Items, ListRanker

TITLES = ["red shoe", "blue shoe", "red hat", "green scarf", "blue hat"]
ITEMS = Items.of(TITLES, ["", "for running", "", "wool", ""])
QUERIES = ["red shoe", "hat"]
LISTS = np.array([[0, 2, 1], [4, 2, NOTHING]])
OWN = {"own": np.array([[0.5, 0.1, 0.3], [2.0, 1.0, 7.0]])}


def test_features_are_those_of_the_same_pairs_elsewhere() -> None:
    found = candidates.described(QUERIES, LISTS, ITEMS, OWN)
    rows, items = [0, 0, 0, 1, 1], [0, 2, 1, 4, 2]
    pairs = Pairs(
        [QUERIES[row] for row in rows],
        [TITLES[item] for item in items],
        [ITEMS.texts[item] for item in items],
        [str(row) for row in rows],
        numeric={"own": np.array([0.5, 0.1, 0.3, 2.0, 1.0])},
    )
    expected = standardised(pairs, ITEMS.statistics)
    assert found.names == expected.names
    assert np.array_equal(found.values, expected.values)
    assert found.row.tolist() == rows
    assert found.item.tolist() == items
    assert "own" not in found.without(["own"]).names


def learnable(queries: int = 60, length: int = 6) -> tuple[candidates.Candidates, np.ndarray]:
    """Lists in which one feature says what is wanted, and another is noise."""
    generator = np.random.default_rng(0)
    row, place = np.divmod(np.arange(queries * length), length)
    values = generator.normal(size=(len(row), 2)).astype(np.float32)
    gains = (values[:, 0] + 0.3 * generator.normal(size=len(row)) > 0.8).astype(float)
    return candidates.Candidates(row, place, place, ("good", "noise"), values), gains


@pytest.mark.parametrize("kind", [LINEAR, TREES, BLEND])
def test_a_ranker_learns_what_is_wanted_and_comes_back_from_its_folder(
    kind: str, tmp_path: Path
) -> None:
    found, gains = learnable()
    folds = found.row % 3
    held_out = candidates.out_of_fold(found, gains, folds)[kind]
    wanted = gains > 0
    order = np.argsort(-held_out)
    assert wanted[order[: wanted.sum()]].mean() > 0.7
    ranker = candidates.fitted(kind, found, gains, folds)
    ranker.save(tmp_path)
    again = ListRanker.load(tmp_path, kind)
    assert np.array_equal(again.scores(found), ranker.scores(found))
    assert again.names == ("good", "noise")
    with pytest.raises(ValueError, match="the ranker takes the features"):
        ranker.scores(found.without(["noise"]))


def test_a_fold_is_scored_by_what_never_saw_it() -> None:
    found, gains = learnable()
    folds = found.row % 3
    before = candidates.out_of_fold(found, gains, folds)
    changed = np.where(folds == 1, 1 - gains, gains)
    after = candidates.out_of_fold(found, changed, folds)
    # the ridge is chosen on all folds, so trees alone stay as they were to the last bit
    assert np.array_equal(before[TREES][folds == 1], after[TREES][folds == 1])
    assert not np.array_equal(before[TREES][folds == 0], after[TREES][folds == 0])


def test_lists_are_ordered_by_score_and_nothing_is_last() -> None:
    found = candidates.described(QUERIES, LISTS, ITEMS, {})
    ordered = candidates.ordered(LISTS, found, np.array([1.0, 3.0, 1.0, 0.0, 2.0]))
    assert ordered.tolist() == [[2, 0, 1], [2, 4, NOTHING]]
