"""Are blindly labelled queries and gaming sellers found on real pairs, and are honest ones left?

    pip install -e '.[benchmark]'
    python benchmarks/doubtful.py

The pairs of the ESCI sample and of Icecat, which are in the folder that $SIE_JAX_DATA names, with
their labels as they are, and with faults planted: a fifth of the queries labelled blindly (each
label drawn from all labels), and a fifth of the brands that can be compared with all of their items
given the best label. The predictions are of trees on features of the words, which never saw the
query (five folds); a better model finds more. Each seed draws the faults and the folds again.
Leaves benchmarks/results/doubtful.json.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from interleaved import machine
from nested import judged, sources
from nested_rankers import Judged
from rich.console import Console
from same_results import commit_of

from sie_jax.data import folds
from sie_jax.files import write_json
from sie_jax.importance import doubtful

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "doubtful.json"
FOLDS, PLANTED = 5, 0.2
TREES = {
    "objective": "multiclass",
    "num_leaves": 7,
    "learning_rate": 0.05,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "seed": 0,
    "verbosity": -1,
}
ROUNDS = 60


def predicted(data: Judged, labels: np.ndarray, seed: int) -> np.ndarray:
    """The probabilities `[N, K]` of trees that never saw the query."""
    fold = folds.assign(list(data.pairs.query_ids), folds=FOLDS, seed=seed)
    found = np.zeros((len(labels), len(data.gains)))
    settings = TREES | {"num_class": len(data.gains)}
    for one in range(FOLDS):
        others = lightgbm.Dataset(data.features.values[fold != one], labels[fold != one])
        trees = lightgbm.train(settings, others, ROUNDS)
        found[fold == one] = trees.predict(data.features.values[fold == one])
    return found


def of_queries(data: Judged, seed: int, *, plant: bool) -> dict[str, Any]:
    """How many queries are doubted, and how many of these were labelled blindly."""
    labels, number = data.labels.copy(), int(data.query.max()) + 1
    rng = np.random.default_rng([seed, 1])
    blind = rng.random(number) < (PLANTED if plant else 0)
    rows = blind[data.query]
    labels[rows] = rng.choice(data.labels, int(rows.sum()))
    p = predicted(data, labels, seed)
    chance, share = doubtful.blind_groups(p, labels, data.query)
    doubted = (chance > 0.5) & (share > doubtful.DOUBTFUL)
    return {
        "share": round(share, 4),
        "planted": int(blind.sum()),
        "found": int((doubted & blind).sum()),
        "false": int((doubted & ~blind).sum()),
        "accuracy": round(float((p.argmax(1) == labels).mean()), 3),
    }


def of_sellers(data: Judged, brand: np.ndarray, seed: int, *, plant: bool) -> dict[str, Any]:
    """The greatest deviation of an honest brand, and how many cheating ones are found."""
    rng, rows = np.random.default_rng([seed, 2]), np.flatnonzero(brand != "")
    labels, query = data.labels[rows].copy(), data.query[rows]
    names, group = np.unique(brand[rows], return_inverse=True)
    compared = doubtful.outlying_groups(labels, group, query) > 0
    cheats = np.zeros(len(names), bool)
    if plant:
        count = round(PLANTED * compared.sum())
        cheats[rng.choice(np.flatnonzero(compared), count, replace=False)] = True
    labels[cheats[group]] = len(data.gains) - 1
    far = doubtful.outlying_groups(labels, group, query)
    return {
        "compared": int(compared.sum()),
        "planted": int(cheats.sum()),
        "found": int((far > doubtful.OUTLYING)[cheats].sum()),
        "false": int((far > doubtful.OUTLYING)[~cheats].sum()),
        "farthest_honest": round(float(far[~cheats].max()), 2),
        "nearest_cheat": round(float(far[cheats].min()), 2) if plant else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        **machine(),
        "commit": commit_of("HEAD"),
        "lightgbm": lightgbm.__version__,
        "seeds": arguments.seeds,
        "sets": {},
    }
    for name, read in sources(Path(os.environ["SIE_JAX_DATA"])).items():
        data = judged(read(), lambda *_: {})
        own: dict[str, Any] = {"queries": int(data.query.max()) + 1, "pairs": len(data.labels)}
        seeds = range(arguments.seeds)
        for kind, plant in (("as they are", False), ("a fifth blind", True)):
            own[kind] = [of_queries(data, seed, plant=plant) for seed in seeds]
        if "brand" in data.pairs.attributes:
            brand = np.array([one or "" for one in data.pairs.attributes["brand"]])
            own["brands as they are"] = [of_sellers(data, brand, 0, plant=False)]
            own["a fifth cheat"] = [of_sellers(data, brand, seed, plant=True) for seed in seeds]
        result["sets"][name] = own
        Console().print(name, own)
        write_json(arguments.out, result)


if __name__ == "__main__":
    main()
