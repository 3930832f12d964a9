import numpy as np
import pytest

from sie_jax.evaluation import off_policy

ACTIONS = 5
TRUE = np.array([0.05, 0.1, 0.2, 0.3, 0.02])
"""The chance of a click on each action."""
LOGGED = np.array([0.4, 0.3, 0.1, 0.1, 0.1])
ASKED = np.array([0.05, 0.05, 0.3, 0.5, 0.1])
VALUE = float(ASKED @ TRUE)


def log(seed: int, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    action = rng.choice(ACTIONS, rounds, p=LOGGED)
    return action, (rng.random(rounds) < TRUE[action]).astype(float)


@pytest.mark.parametrize("model", [TRUE, np.full(ACTIONS, 0.5)], ids=["right", "wrong"])
def test_estimates_hold_the_truth_as_often_as_they_say(model: np.ndarray) -> None:
    covered = dict.fromkeys(("ips", "snips", "dr"), 0)
    values: dict[str, list[float]] = {name: [] for name in covered}
    logs = 400
    for seed in range(logs):
        action, reward = log(seed, 500)
        found = off_policy.estimates(
            reward,
            LOGGED[action],
            ASKED[action],
            shown_value=model[action],
            policy_value=np.full(len(action), ASKED @ model),
        )
        for name in covered:
            values[name].append(found[name]["value"])
            covered[name] += found[name]["low"] <= VALUE <= found[name]["high"]
    for name, times in covered.items():
        # of 400 at 95 %: four standard deviations of a binomial count around it
        assert times / logs == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / logs) ** 0.5), name
        spread = np.std(values[name]) / logs**0.5
        assert np.mean(values[name]) == pytest.approx(VALUE, abs=4 * spread), name


def test_a_right_model_narrows_the_interval() -> None:
    action, reward = log(0, 2000)
    found = off_policy.estimates(
        reward,
        LOGGED[action],
        ASKED[action],
        shown_value=TRUE[action],
        policy_value=np.full(len(action), VALUE),
    )
    widths = {name: found[name]["high"] - found[name]["low"] for name in ("ips", "dr")}
    assert widths["dr"] < widths["ips"]


def test_formulas() -> None:
    reward, logged, asked = np.array([1.0, 0, 1]), np.array([0.5, 0.25, 1]), np.array([1, 0.5, 0.5])
    found = off_policy.estimates(reward, logged, asked)
    weights = asked / logged
    assert found["ips"]["value"] == pytest.approx((weights * reward).mean())
    assert found["snips"]["value"] == pytest.approx((weights * reward).sum() / weights.sum())
    assert found["effective_sample_size"] == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    assert (found["rounds"], found["rewarded"]) == (3, 2)
    assert found["mean_weight"] == pytest.approx(weights.mean())
    # the same policy: both are the mean of the log
    same = off_policy.estimates(reward, logged, logged)
    assert same["ips"] == same["snips"]
    assert same["ips"]["value"] == pytest.approx(reward.mean())


@pytest.mark.parametrize(
    ("logged", "asked"), [([0.0, 0.5], [0.1, 0.1]), ([0.5, 0.5], [-0.1, 0.1]), ([0.5, 2], [0, 1])]
)
def test_probabilities_are_probabilities(logged: list[float], asked: list[float]) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        off_policy.estimates(np.ones(2), np.array(logged), np.array(asked))
