"""Do the off-policy estimates hold what they say, where the truth is known and on a shop's log?

    python benchmarks/off_policy.py  # benchmarks/results/off_policy.json

*simulated*: 1,000,000 impressions of one of 20 items to users of 6 features, shown by a softmax
policy that explores, or hardly does, and clicked with a chance that is known. It is asked what
another policy would earn. The log is cut into 500 logs of 2,000 impressions: the bias of an
estimate over all of them, and how often its interval holds the truth. Once the probabilities are
right; once those that were logged are too even (their square root, normalised). DR has a model that
knows no features, fitted on the other half of each log, and once the true one.

*open_bandit*: 10,000 impressions that ZOZO's shop showed at random and 10,000 that its Thompson
sampling showed ("men", Saito et al. 2021, in the folder that $SIE_JAX_DATA names). The random log
is asked for the click rate of Thompson sampling, whose probability of an item at a position is the
mean of what its own log says. With some fifty clicks "consistent" is all that can be said.
"""

import argparse
import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
from interleaved import machine
from same_results import commit_of
from scipy import special

from sie_jax.evaluation import off_policy
from sie_jax.files import write_json

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "off_policy.json"
IMPRESSIONS, LOGS, ITEMS, FEATURES = 1_000_000, 500, 20, 6
NAMES = ("ips", "snips", "dr")
EXPLORES = {"explores": 0.3, "hardly explores": 0.01}
"""The share of its impressions of which the log's policy draws the item evenly."""


def simulated(explores: float, seed: int = 0) -> dict[str, Any]:
    """Bias and coverage of each estimate, from the log of a policy that explores so much."""
    rng = np.random.default_rng(seed)
    user = rng.normal(size=(IMPRESSIONS, FEATURES))
    taste, habit, other = (rng.normal(size=(FEATURES, ITEMS)) for _ in range(3))
    chance = special.expit(-3 + 0.7 * user @ taste)
    logging = (1 - explores) * special.softmax(0.5 * user @ habit, axis=1) + explores / ITEMS
    asked = special.softmax(0.3 * user @ (taste + 0.5 * other), axis=1)
    draws = rng.random((IMPRESSIONS, 1))
    action = (logging.cumsum(1) < draws).sum(1).clip(max=ITEMS - 1)
    rows = np.arange(IMPRESSIONS)
    click = (rng.random(IMPRESSIONS) < chance[rows, action]).astype(float)
    truth = float((asked * chance).sum(1).mean())
    even = np.sqrt(logging)
    even /= even.sum(1, keepdims=True)
    settings = {
        "right probabilities": (logging, False),
        "right probabilities, true model": (logging, True),
        "wrong probabilities": (even, False),
        "wrong probabilities, true model": (even, True),
    }
    found: dict[str, Any] = {}
    for name, (told, knows) in settings.items():
        values = {one: np.zeros(LOGS) for one in NAMES}
        holds, sizes = dict.fromkeys(NAMES, 0), np.zeros(LOGS)
        for log in range(LOGS):
            own = slice(log * IMPRESSIONS // LOGS, (log + 1) * IMPRESSIONS // LOGS)
            value = chance[own] if knows else _fitted(action[own], click[own])
            place = np.arange(len(action[own])), action[own]
            got = off_policy.estimates(
                click[own],
                told[own][place],
                asked[own][place],
                shown_value=value[place],
                policy_value=(asked[own] * value).sum(1),
            )
            exact = float((asked[own] * chance[own]).sum(1).mean())
            sizes[log] = got["effective_sample_size"]
            for one in NAMES:
                values[one][log] = got[one]["value"] - exact
                holds[one] += got[one]["low"] <= exact <= got[one]["high"]
        found[name] = {
            "effective_sample_size": float(np.median(sizes)),
            **{
                one: {
                    "bias": float(values[one].mean()),
                    "bias_error": float(values[one].std(ddof=1) / LOGS**0.5),
                    "spread": float(values[one].std(ddof=1)),
                    "coverage": holds[one] / LOGS,
                }
                for one in NAMES
            },
        }
    whole = off_policy.estimates(click, logging[rows, action], asked[rows, action])
    return {
        "truth": truth,
        "logged_click_rate": float(click.mean()),
        "settings": found,
        "whole_log": {one: whole[one] for one in (*NAMES[:2], "effective_sample_size")},
    }


def _fitted(action: np.ndarray, click: np.ndarray) -> np.ndarray:
    """The click rate of each item [N, ITEMS] in the other half of the log, towards that of all."""
    half = np.arange(len(action)) % 2
    value = np.zeros((len(action), ITEMS))
    for part in range(2):
        other = half != part
        shown = np.bincount(action[other], minlength=ITEMS)
        clicked = np.bincount(action[other], click[other], minlength=ITEMS)
        value[half == part] = (clicked + 20 * click[other].mean()) / (shown + 20)
    return value


def open_bandit(folder: Path) -> dict[str, Any]:
    """What the random log says of Thompson sampling, beside what that earned."""
    random, bts = (_log(folder / name / "men" / "men.csv") for name in ("random", "bts"))
    means: dict[tuple[int, int], list[float]] = {}
    for item, position, propensity in zip(
        bts["item"], bts["position"], bts["propensity"], strict=True
    ):
        means.setdefault((int(item), int(position)), []).append(propensity)
    asked = np.array(
        [
            np.mean(means.get((int(item), int(position)), [0.0]))
            for item, position in zip(random["item"], random["position"], strict=True)
        ]
    )
    items = int(random["item"].max()) + 1
    totals = np.zeros(3)
    for (_, position), several in means.items():
        totals[position - 1] += np.mean(several)
    asked /= totals[random["position"].astype(int) - 1]
    half = np.arange(len(asked)) % 2
    shown, policy = np.zeros(len(asked)), np.zeros(len(asked))
    table = np.zeros((items, 3))
    for (item, position), several in means.items():
        table[item, position - 1] = np.mean(several) / totals[position - 1]
    for part in range(2):
        other = half != part
        counts = np.bincount(random["item"][other].astype(int), minlength=items)
        clicked = np.bincount(
            random["item"][other].astype(int), random["click"][other], minlength=items
        )
        rate = (clicked + 100 * random["click"][other].mean()) / (counts + 100)
        shown[half == part] = rate[random["item"][half == part].astype(int)]
        policy[half == part] = (rate @ table)[random["position"][half == part].astype(int) - 1]
    same = np.ones(len(bts["click"]))
    earned = off_policy.estimates(bts["click"], same, same)
    return {
        "asked": off_policy.estimates(
            random["click"], random["propensity"], asked, shown_value=shown, policy_value=policy
        ),
        "earned": earned["ips"],
        "earned_clicks": int(bts["click"].sum()),
        "random": off_policy.estimates(random["click"], same, same)["ips"],
        "random_clicks": int(random["click"].sum()),
    }


def _log(path: Path) -> dict[str, np.ndarray]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    names = {"item": "item_id", "position": "position", "click": "click"}
    names |= {"propensity": "propensity_score"}
    return {one: np.array([float(row[name]) for row in rows]) for one, name in names.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    write_json(
        given.out,
        {
            **machine(),
            "commit": commit_of("HEAD"),
            "impressions": IMPRESSIONS,
            "logs": LOGS,
            "simulated": {name: simulated(share) for name, share in EXPLORES.items()},
            "open_bandit": open_bandit(Path(os.environ["SIE_JAX_DATA"]) / "open_bandit"),
        },
    )


if __name__ == "__main__":
    main()
