import numpy as np
import pytest

from sie_jax.evaluation import claims, recommending
from sie_jax.evaluation.retrieval import Wanted

RNG = np.random.default_rng(0)
USERS = 200


def measured(**chances: list[float]) -> dict[str, dict[str, np.ndarray]]:
    """Runs whose users find what they want at the first place with such a chance, by seed."""
    draws = RNG.random(USERS)
    return {
        run: {"ndcg@10": np.stack([(draws < chance).astype(float) for chance in seeds])}
        for run, seeds in chances.items()
    }


def test_metrics_of_lists_by_user_and_seed() -> None:
    lists = {"uniform": [np.array([[1, 2], [3, 4]]), np.array([[2, 1], [4, 3]])]}
    found = recommending.by_user(lists, Wanted(np.array([0, 1]), np.array([1, 4])), (1, 2))
    assert found["uniform"]["hit@1"].tolist() == [[1, 0], [0, 1]]
    assert found["uniform"]["recall@2"].tolist() == [[1, 1], [1, 1]]


def test_differences_are_claims_over_users_and_seeds() -> None:
    runs = measured(uniform=[0.3, 0.32], clipped=[0.4, 0.41], popularity=[0.2])
    found = recommending.summarised(runs)
    expected = claims.procedure(runs["clipped"]["ndcg@10"] - runs["uniform"]["ndcg@10"])
    assert found["difference"]["clipped"]["ndcg@10"] == expected
    assert found["seeds"]["popularity"]["ndcg@10"] == [runs["popularity"]["ndcg@10"].mean()]
    assert "uniform" not in found["difference"]


@pytest.mark.parametrize(
    ("chances", "exported", "beats", "said"),
    [
        ({"uniform": [0.6], "als": [0.2]}, "uniform", True, "is above the best baseline"),
        ({"uniform": [0.2], "als": [0.6]}, "uniform", False, "is below the best baseline"),
        ({"uniform": [0.2], "als": [0.6]}, "als", False, "is the baseline als"),
        ({"uniform": [0.3], "als": [0.3]}, "uniform", None, "It is not resolved"),
    ],
)
def test_the_verdict_says_what_was_shown(
    chances: dict[str, list[float]], exported: str, beats: bool | None, said: str
) -> None:
    found = recommending.verdict(
        measured(**chances), exported=exported, baselines=("als",), validation={"uniform": 0.3}
    )
    assert found["beats_baseline"] is beats
    assert said in found["notes"][0]


def test_one_seed_cannot_tell_a_weighting_from_luck() -> None:
    runs = measured(uniform=[0.3], clipped=[0.5], als=[0.2])
    found = recommending.verdict(runs, exported="uniform", baselines=("als",), validation={})
    assert "One seed cannot tell" in found["notes"][2]
    runs = measured(uniform=[0.3, 0.31, 0.3], clipped=[0.5, 0.51, 0.5], als=[0.2])
    found = recommending.verdict(runs, exported="uniform", baselines=("als",), validation={})
    assert found["notes"][2].startswith("clipped is above uniform: +0.")
