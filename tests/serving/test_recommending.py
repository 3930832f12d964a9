"""Folders of recommenders without a network, and of a blend (a run's own: recipes)."""

from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from sie_jax.errors import UserError
from sie_jax.models.histories import HistoryModel, HistoryShape
from sie_jax.models.recommenders import PairwiseFactors, Popularity
from sie_jax.serving import recommending
from sie_jax.serving.recommending import HistoryRecommender, blended

COMMON = {
    "items": ["x", "y", "z"],
    "texts": ["an x", "", "a z"],
    "met": np.array([False, True, True, True]),
    "events": ["event"],
}


def test_a_user_of_the_training_has_his_own_vector(tmp_path: Path) -> None:
    vectors = np.array([[0.0, 0], [1, 0], [0, 1], [-1, 0]], np.float32)
    other = PairwiseFactors(np.array([[0.0, 2], [-3, 0]], np.float32), vectors)
    users = {"a": 0, "b": 1}
    recommending.save(tmp_path, **COMMON, repeats=True, other=other, users=users)
    model = HistoryRecommender.load(tmp_path)
    first = {user: model.recommend(["x"], user=user)[0] for user in ("a", "b", "new")}
    assert {user: one.item_id for user, one in first.items()} == {"a": "y", "b": "z", "new": "x"}
    assert first["b"] == ("z", "a z", 3.0)


def test_what_was_had_is_left_out_without_repeats(tmp_path: Path) -> None:
    other = Popularity(np.array([0, 5, 3, 4], np.float32))
    recommending.save(tmp_path, **COMMON, repeats=False, other=other)
    found = HistoryRecommender.load(tmp_path).recommend(["x", "unknown"])
    assert [one.item_id for one in found] == ["z", "y"]


def test_a_blend_adds_standardised_scores(tmp_path: Path) -> None:
    model = HistoryModel(HistoryShape(items=3, hidden=4, heads=2, length=5), rngs=nnx.Rngs(0))
    other = Popularity(np.array([0, 5, 3, 4], np.float32))
    recommending.save(tmp_path, **COMMON, repeats=True, model=model, other=other, share=0.5)
    read = HistoryRecommender.load(tmp_path)
    logits = np.array(model.last_logits(np.array([2])), np.float64)[1:]
    z, theirs = ((one - one.mean()) / one.std() for one in (logits, other.counts[1:]))
    scores = {one.item_id: one.score for one in read.recommend(["y"])}
    assert [scores[one] for one in "xyz"] == pytest.approx((z + 0.5 * theirs).tolist(), abs=1e-5)
    one = np.array([[-np.inf, 1.0, 2.0, -np.inf]])
    assert blended(one.copy(), np.zeros((1, 4)), 1.0)[0].tolist() == [-np.inf, -1.0, 1.0, -np.inf]


def test_a_damaged_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder of a recommender"):
        HistoryRecommender.load(tmp_path)
