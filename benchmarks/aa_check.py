"""How often the verdict claims a difference between identical procedures, and finds a true one.

    python benchmarks/aa_check.py                       # one minute of one core

A pair of procedures is trained on the same generated queries and ranks the same test queries, with
S seeds each. Three ways to learn, which differ in what a seed does: ridge regression on a bootstrap
of the training queries, ridge regression on random features, and logistic regression cut short from
a random start. Each pair draws its queries anew.

`identical`: both procedures are the same, so "helped" or "hurt" should come in 5 % of the pairs.
`equal`: each is blind to another of two features that matter as much as each other, so they differ
query by query and not on average. (Given its training queries one is a little better, since those
are a sample too, so a little more than 5 % is right there.) `better`: one sees fewer wrong labels,
which helps by the mean difference over all pairs. Beside the verdict: `bootstrap`, the percentile
bootstrap over queries alone; `plain_sum`, the variance over queries and that over seeds added up,
with Welch-Satterthwaite degrees of freedom. `fixed` holds two fixed rankers against each other,
equally good by symmetry.

Leaves benchmarks/results/aa_check.json.
"""

import argparse
import functools
import itertools
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from sie_jax.evaluation import claims, intervals
from sie_jax.evaluation.verdict import Training, verdict
from sie_jax.files import write_json

RESULTS = Path(__file__).parent / "results" / "aa_check.json"
QUERIES, SEEDS, RESAMPLES = (30, 100, 300), (2, 3, 5), 1000
ITEMS, FEATURES, TRAINING_QUERIES = 12, 6, 150
# of utilities in standard deviations: the best items of a query have the highest gain
THRESHOLDS, GAINS = (0.3, 1.0, 1.6), np.array([0.0, 0.1, 0.5, 1.0])
WRONG_LABELS, FEWER_WRONG_LABELS = 0.4, 0.2
ALIKE = (4, 5)  # features that a query's taste treats alike
FIXED_PAIRS = 1000
TRAINING = Training(TRAINING_QUERIES, TRAINING_QUERIES * ITEMS, 112, 112, pretrained=True)


class Queries(NamedTuple):
    """Features [Q, L, F] and labels [Q, L] of the items of Q queries."""

    features: np.ndarray
    labels: np.ndarray


def drawn(generator: np.random.Generator, queries: int) -> Queries:
    """Each query has a taste of its own about a common one, so some are harder to rank."""
    features = generator.normal(size=(queries, ITEMS, FEATURES))
    taste = 0.5 + 0.5 * generator.normal(size=(queries, FEATURES))
    utility = np.einsum("qlf,qf->ql", features, taste) + features[..., 0] * features[..., 1]
    utility += generator.normal(size=utility.shape)
    return Queries(features, np.digitize(utility / utility.std(), THRESHOLDS))


def mislabelled(generator: np.random.Generator, data: Queries, share: float) -> Queries:
    wrong = generator.random(data.labels.shape) < share
    return data._replace(
        labels=np.where(wrong, generator.integers(len(GAINS), size=wrong.shape), data.labels)
    )


def ridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ (y - y.mean()))


def bagged(generator: np.random.Generator, data: Queries, test: np.ndarray) -> np.ndarray:
    bag = generator.integers(len(data.labels), size=len(data.labels))
    x, y = data.features[bag].reshape(-1, FEATURES), GAINS[data.labels[bag]].ravel()
    return test @ ridge(x, y)


def random_features(generator: np.random.Generator, data: Queries, test: np.ndarray) -> np.ndarray:
    first = 0.6 * generator.normal(size=(FEATURES, 24))
    x = np.tanh(data.features.reshape(-1, FEATURES) @ first)
    return np.tanh(test @ first) @ ridge(x, GAINS[data.labels].ravel())


def cut_short(generator: np.random.Generator, data: Queries, test: np.ndarray) -> np.ndarray:
    x, y = data.features.reshape(-1, FEATURES), data.labels.ravel() > 0
    weights = 0.2 * generator.normal(size=FEATURES)
    for rows in generator.integers(len(x), size=(60, 16)):
        away = y[rows] - 1 / (1 + np.exp(-x[rows] @ weights))
        weights += 0.3 * away @ x[rows] / len(rows)
    return test @ weights


LEARNERS: dict[str, Callable[..., np.ndarray]] = {
    "bagged": bagged,
    "random_features": random_features,
    "cut_short": cut_short,
}


KINDS = ("identical", "equal", "better")


def ndcg(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """nDCG@10 [Q] of scores [Q, L]; NaN for a query without gain."""
    discount = 1 / np.log2(np.arange(2, ITEMS + 2)) * (np.arange(ITEMS) < 10)
    gains = GAINS[labels]
    found = np.take_along_axis(gains, np.argsort(-scores, axis=1), 1) @ discount
    best = -np.sort(-gains, axis=1) @ discount
    return np.where(best > 0, found / np.where(best > 0, best, 1), np.nan)


def blind(data: Queries, feature: int) -> Queries:
    features = data.features.copy()
    features[..., feature] = 0
    return data._replace(features=features)


def pairs(
    kind: str, learner: str, queries: int, seeds: int, *, number: int
) -> Iterator[dict[str, np.ndarray]]:
    """nDCG@10 [S, Q] of `uniform` and `weighted`, two procedures of this kind."""
    cell = (KINDS.index(kind), list(LEARNERS).index(learner), queries, seeds)
    for pair in range(number):
        generator = np.random.default_rng((*cell, pair))
        test, data = drawn(generator, queries), drawn(generator, TRAINING_QUERIES)
        noisy = mislabelled(generator, data, WRONG_LABELS)
        seen = {"uniform": (noisy, test), "weighted": (noisy, test)}
        if kind == "better":
            seen["weighted"] = mislabelled(generator, data, FEWER_WRONG_LABELS), test
        elif kind == "equal":
            for run, feature in zip(seen, ALIKE, strict=True):
                seen[run] = blind(noisy, feature), blind(test, feature)
        yield {
            run: np.stack(
                [
                    ndcg(LEARNERS[learner](generator, training, shown.features), test.labels)
                    for _ in range(seeds)
                ]
            )
            for run, (training, shown) in seen.items()
        }


@functools.cache
def resamples(queries: int) -> np.ndarray:
    return np.concatenate(list(intervals.resampling(queries, resamples=RESAMPLES, seed=0)))


def bootstrap(values: np.ndarray) -> dict[str, float | None]:
    """The percentile interval of the mean over resampled queries."""
    means = intervals.weighted_mean(values, resamples(len(values)))
    return intervals.interval(float(np.nanmean(values)), means)


def plain_sum(differences: np.ndarray) -> dict[str, float | None]:
    """The interval from the variance over queries and that over seeds, added up."""
    seeds, queries = differences.shape
    parts = np.array([differences.mean(0).var(ddof=1) / queries, differences.mean(1).var(ddof=1)])
    parts[1] /= seeds
    freedom = parts.sum() ** 2 / (parts**2 / [queries - 1, seeds - 1]).sum()
    half = stats.t.ppf(0.975, freedom) * parts.sum() ** 0.5
    value = differences.mean()
    return {"value": value, "low": value - half, "high": value + half}


def side(interval: dict[str, float | None]) -> int:
    """1 where an interval lies above zero, -1 below, 0 where it includes zero."""
    low, high = interval["low"], interval["high"]
    return int(low is not None and low > 0) - int(high is not None and high < 0)


def judged(runs: dict[str, np.ndarray]) -> dict[str, float]:
    """What each interval says of one pair, and how its differences vary."""
    nothing = np.zeros((1, runs["uniform"].shape[1]))
    made = verdict({"random": nothing, **runs}, TRAINING, ranker="weighted")
    said = [note.split(":")[0] for note in made["notes"]]
    differences = runs["weighted"] - runs["uniform"]
    resampled = bootstrap(differences.mean(0))
    differences = differences[:, ~np.isnan(differences[0])]
    rest = differences - differences.mean(0) - differences.mean(1)[:, None] + differences.mean()
    return {
        "verdict": ("Weighting helped" in said) - ("Weighting hurt" in said),
        "bootstrap": side(resampled),
        "plain_sum": side(plain_sum(differences)),
        "difference": differences.mean(),
        "of_seeds": differences.mean(1).var(ddof=1),
        "of_queries": differences.mean(0).var(ddof=1),
        "of_both": (rest**2).sum() / np.prod(np.array(rest.shape) - 1),
    }


def shares(found: list[dict[str, float]]) -> dict[str, Any]:
    """How often each interval lies on a side of zero, and the mean difference."""
    columns = {name: np.array([one[name] for one in found]) for name in found[0]}
    return {
        "pairs": len(found),
        "difference": float(columns["difference"].mean()),
        "difference_error": float(columns["difference"].std() / len(found) ** 0.5),
        **{
            name: {
                "helped": float((columns[name] > 0).mean()),
                "hurt": float((columns[name] < 0).mean()),
            }
            for name in ("verdict", "bootstrap", "plain_sum")
        },
        # roots of the mean variances
        "deviation": {
            name: float(columns[f"of_{name}"].mean() ** 0.5)
            for name in ("seeds", "queries", "both")
        },
    }


def compared(kind: str, *, number: int) -> dict[str, Any]:
    """Pairs of a kind: those of each setting, of each number of seeds, and all together."""
    found = {
        (learner, queries, seeds): [
            judged(runs) for runs in pairs(kind, learner, queries, seeds, number=number)
        ]
        for learner, queries, seeds in itertools.product(LEARNERS, QUERIES, SEEDS)
    }
    return {
        "all": shares([one for each in found.values() for one in each]),
        "by_seeds": {
            str(seeds): shares(
                [one for key, each in found.items() if key[2] == seeds for one in each]
            )
            for seeds in SEEDS
        },
        "settings": [
            {**dict(zip(("learner", "queries", "seeds"), key, strict=True)), **shares(each)}
            for key, each in found.items()
        ],
    }


def of_fixed(queries: int) -> dict[str, float]:
    """The share of pairs of fixed rankers, equally good by symmetry, that are called different."""
    called = {"t": 0, "bootstrap": 0}
    for pair in range(FIXED_PAIRS):
        test = drawn(np.random.default_rng((queries, pair)), queries)
        one, other = (ndcg(test.features[..., feature], test.labels) for feature in ALIKE)
        differences = one - other
        called["t"] += abs(side(claims.fixed(differences)))
        called["bootstrap"] += abs(side(bootstrap(differences)))
    return {"pairs": FIXED_PAIRS, **{name: of / FIXED_PAIRS for name, of in called.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=150, help="of each setting")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    start = time.process_time()
    result: dict[str, Any] = {
        "device": "cpu",
        "platform": platform.machine(),
        "python": platform.python_version(),
        **{kind: compared(kind, number=arguments.pairs) for kind in KINDS},
        "fixed": {str(queries): of_fixed(queries) for queries in QUERIES},
    }
    result["cpu_seconds"] = time.process_time() - start
    write_json(arguments.out, result)
    for kind in KINDS:
        for name, one in {"all": result[kind]["all"], **result[kind]["by_seeds"]}.items():
            print(
                kind,
                f"{name} seeds" if name != "all" else name,
                f"{one['pairs']} pairs, mean difference {one['difference']:+.4f}:",
                ", ".join(
                    f"{way} helped {one[way]['helped']:.1%} hurt {one[way]['hurt']:.1%}"
                    for way in ("verdict", "bootstrap", "plain_sum")
                ),
            )
    print("fixed", result["fixed"], f"{result['cpu_seconds']:.0f} CPU seconds")


if __name__ == "__main__":
    main()
