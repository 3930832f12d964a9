"""What an audit finds, what it says of the number of wrong labels, and what correcting them gains.

    pip install -e '.[benchmark]'
    python benchmarks/audit.py --workdir=FOLDER [--only PART ...]

Two kinds of generated shops, each of three seeds and 1,000 queries: `synthetic`, whose labels
follow from its words, and `market`, in which the words of customers and sellers differ. The labels
are judged out of fold by trees on features of the words (`audit_model.py`), a cheap model that
stands for any. With 0, 5, 10 and 20 % wrong labels, of any kind (`uniform`) or those that a weak
model gets wrong (`confusion`): the estimated number of wrong labels beside the true one, and the
precision among the first 1, 2, 5 and 10 % by each score, beside cleanlab (`cells`). `weak` has
models that see little or nothing. `coverage` has the estimates alone, on twenty smaller shops that
no limit was chosen on.

`round_trip`: the first 5 % are given their true labels and the model is trained again, with as many
random ones for comparison; nDCG@10 on test queries, five seeds. `few_queries`: the same where right
labels are worth more, with 200 queries to learn from, 400 to test on, a fifth of the queries
careless or positives missed, ten seeds. That they are worth more was seen on seeds 101 to 103.
Whole queries are corrected there too, those with the most doubtful labels first, or random ones.

`encoder` measures the first three scores, and the others of importance, on what the product does
itself: the model of configs/shop.py on three synthetic shops of 1,500 queries with 20 % wrong
labels, five folds, ranked by each score as it is and by its rank within the fold.

Without `--only` all but `encoder` is measured; what is not stays as it is. Every cell is a file in
FOLDER: the same command resumes. Writes benchmarks/results/audit.json.
"""

import argparse
import importlib.metadata
import itertools
import runpy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import audit_model
import jax
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from audit_model import Setting
from cleanlab.count import compute_confident_joint
from cleanlab.rank import get_label_quality_scores
from same_results import commit_of
from scipy import special

from sie_jax import importance
from sie_jax.evaluation import audit, detection, label_errors
from sie_jax.evaluation.predictions import PROBABILITY, probabilities
from sie_jax.files import read_json, whole, write_json
from sie_jax.recipes import relevance

RESULTS = Path(__file__).parent / "results" / "audit.json"
CONFIG = Path(__file__).parents[1] / "configs" / "shop.py"
SEEDS, SHARES, FOLDS = (1, 2, 3), (0.01, 0.02, 0.05, 0.1), 5
SHOPS, KINDS, RATES = ("synthetic", "market"), ("confusion", "uniform"), (0.0, 0.05, 0.1, 0.2)
RELABELLED, TRIP_SEEDS, FEW_SEEDS = 0.05, (1, 2, 3, 4, 5), tuple(range(1, 11))
FEW_QUERIES = {"annotator": 0.2, "missing_positive": 0.15}
"""The kinds of wrong labels of a market with few queries, and their share."""
COVERAGE_SEEDS, COVERAGE_QUERIES = tuple(range(11, 31)), 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=[name for name in PARTS if name != "encoder"]
    )
    options = parser.parse_args()
    cells = options.workdir / "cells"
    cells.mkdir(parents=True, exist_ok=True)
    measured, commit = {}, commit_of("HEAD")
    for name in options.only:
        measured[name] = PARTS[name](options.workdir if name == "encoder" else cells)
    found = read_json(RESULTS) if RESULTS.is_file() else {}
    about = {
        "device": jax.devices()[0].device_kind,
        "cleanlab": importlib.metadata.version("cleanlab"),
        "queries": audit_model.QUERIES,
        "commits": found.get("commits", {}) | dict.fromkeys(measured, commit),
    }
    write_json(RESULTS, found | about | measured)


def of_shops(cells: Path) -> list[dict[str, Any]]:
    """What is estimated and found in shops of both kinds, by good models."""
    settings = [
        Setting(shop, kind, rate, seed)
        for shop, kind, rate, seed in itertools.product(SHOPS, KINDS, RATES, SEEDS)
        if rate or kind == KINDS[0]  # without noise there is no kind
    ]
    return [one._asdict() | estimated(**opinions(one, cells)) for one in settings]


def of_weak_models(cells: Path) -> list[dict[str, Any]]:
    """The same by models that see little or nothing."""
    settings = [
        Setting("synthetic", "confusion", 0.1, seed, view)
        for view, seed in itertools.product(audit_model.VIEWS[1:], SEEDS)
    ]
    return [one._asdict() | estimated(**opinions(one, cells)) for one in settings]


def coverage(cells: Path) -> list[dict[str, Any]]:
    """What is said of the number of wrong labels in further shops."""
    found = []
    for seed, kind, rate in itertools.product(COVERAGE_SEEDS, KINDS, RATES[1:]):
        setting = Setting("synthetic", kind, rate, seed, queries=COVERAGE_QUERIES, test=0.05)
        p, labels, truth, query = opinions(setting, cells).values()
        errors = label_errors.estimate(p, labels, query)
        wrong = int((labels != truth).sum())
        said = {"pairs": len(labels), "wrong": wrong, "sure": errors.sure}
        alone = {"anchors": errors.anchors, "confident_joint": errors.confident_joint}
        found.append(setting._asdict() | said | alone)
    return found


def round_trips(cells: Path) -> dict[str, Any]:
    """What corrections gain in each kind of shop."""
    return {
        shop: gains([Setting(shop, KINDS[0], 0.1, seed) for seed in TRIP_SEEDS], cells)
        for shop in SHOPS
    }


def trips_with_few_queries(cells: Path) -> dict[str, Any]:
    """What they gain for models of few queries, by the kind of wrong labels."""
    return {
        kind: {"noise": rate}
        | gains(
            [Setting("market", kind, rate, seed, queries=600, test=2 / 3) for seed in FEW_SEEDS],
            cells,
        )
        for kind, rate in FEW_QUERIES.items()
    }


def kept(path: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is in the file, measured and put there where it is not."""
    if not path.is_file():
        write_json(path, measure())
        print(path.stem, flush=True)
    found: dict[str, Any] = read_json(path)
    return found


def opinions(setting: Setting, folder: Path) -> dict[str, np.ndarray]:
    """The out-of-fold probabilities `p` of a shop, its `labels`, their `truth`, the `query`."""
    path = folder / f"{setting.name}.npz"
    if not path.is_file():
        made = audit_model.shop(setting)
        p, rows = audit_model.out_of_fold(made, made.label)
        query = np.unique(made.query[rows], return_inverse=True)[1]
        found = {"p": p, "labels": made.label[rows], "truth": made.truth[rows], "query": query}
        with whole(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **found)
        print(path.stem, flush=True)
    return dict(np.load(path))


def estimated(
    p: np.ndarray, labels: np.ndarray, truth: np.ndarray, query: np.ndarray
) -> dict[str, Any]:
    """The estimates from out-of-fold probabilities, and the precision of each score."""
    wrong = labels != truth
    errors = label_errors.estimate(p, labels, query)
    joint = compute_confident_joint(labels, p, calibrate=True)
    order = np.argsort(-label_errors.doubts("self_confidence", p, labels), kind="stable")
    lengths = {f"{share:.0%}": int(share * len(order)) for share in SHARES}
    expected = {
        share: [float(one[order[:length]].mean()) for one in (errors.probability, *errors.between)]
        for share, length in lengths.items()
    }
    calibrated = label_errors.tempered(p, labels)
    return {
        "pairs": len(labels),
        "accuracy": float((p.argmax(1) == truth).mean()),
        "wrong": int(wrong.sum()),
        "estimate": errors.wrong["value"],
        "anchors": errors.anchors,
        "confident_joint": errors.confident_joint,
        "cleanlab": float(len(labels) * (1 - np.trace(joint) / joint.sum())),
        "sum": float((1 - calibrated[np.arange(len(labels)), labels]).sum()),
        "by_label": {
            "true": [int(wrong[labels == one].sum()) for one in range(audit_model.CLASSES)],
            "estimated": (errors.matrix.sum(1) - errors.matrix.diagonal()).tolist(),
        },
        "sure": errors.sure,
        "above_majority": errors.above_majority,
        "expected": expected,
        "precision": {
            score: precision(label_errors.doubts(score, p, labels), wrong)
            for score in label_errors.SCORES
        }
        | {f"cleanlab, {score}": precision(quality(p, labels, score), wrong)
           for score in label_errors.SCORES},
    }  # fmt: skip


def round_trip(setting: Setting, folder: Path) -> dict[str, Any]:
    """nDCG@10 before and after a share of the labels are corrected, by what they are chosen by.

    With whole queries the last one is corrected in part, so that the number of labels is the same.
    """
    made = audit_model.shop(setting)
    p, rows = opinions(setting, folder)["p"], np.flatnonzero(~made.tested)
    query = np.unique(made.query[rows], return_inverse=True)[1]
    number = int(RELABELLED * len(rows))
    rng = np.random.default_rng(setting.seed)
    doubts = {s: label_errors.doubts(s, p, made.label[rows]) for s in label_errors.SCORES}
    summed = np.bincount(query, doubts[label_errors.SCORES[0]])
    doubts["queries"] = (summed / np.bincount(query))[query]  # a label costs the same in all
    doubts["random"] = rng.random(len(rows))
    doubts["random queries"] = rng.random(len(summed))[query]
    found: dict[str, Any] = {"labels": number, "before": audit_model.ndcg(made, made.label)}
    for name, doubt in doubts.items():
        label = made.label.copy()
        chosen = rows[np.argsort(-doubt, kind="stable")[:number]]
        label[chosen] = made.truth[chosen]
        changed = int((label != made.label).sum())
        found[name] = {"ndcg@10": audit_model.ndcg(made, label), "changed": changed}
    found["all"] = {"ndcg@10": audit_model.ndcg(made, made.truth)}
    return {**setting._asdict(), **found}


def gains(settings: Sequence[Setting], cells: Path) -> dict[str, Any]:
    """Of each way to choose: the gain in nDCG@10 per 100 labels, paired over the settings."""
    trips = [
        kept(cells / f"trip-{one.name}.json", partial(round_trip, one, cells)) for one in settings
    ]
    before = np.array([one["before"] for one in trips])
    hundreds = np.array([one["labels"] for one in trips]) / 100
    found: dict[str, Any] = {"before": float(before.mean()), "labels": float(100 * hundreds.mean())}
    after = {
        name: np.array([one[name]["ndcg@10"] for one in trips])
        for name, value in trips[0].items()
        if isinstance(value, dict)
    }
    for name, values in after.items():
        found[name] = {"gain": spread(values - before)}
        if name != "all":
            found[name] |= {
                "per_100": spread((values - before) / hundreds),
                "per_100_less_random": spread((values - after["random"]) / hundreds),
                "changed": float(np.mean([one[name]["changed"] for one in trips])),
            }
    return found


def spread(values: np.ndarray) -> dict[str, float]:
    """The mean over seeds with Student's 95 % interval."""
    half = special.stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / len(values) ** 0.5
    mean = float(values.mean())
    return {"value": mean, "low": mean - float(half), "high": mean + float(half)}


def of_encoder(workdir: Path) -> dict[str, Any]:
    """The rankings by the product's own encoder."""
    found: dict[str, list[Any]] = {}
    pairs, estimates = [], []
    for seed in SEEDS:
        config = runpy.run_path(str(CONFIG))["get_config"]()
        config.data.synthetic.seed = seed
        config.train.folds = FOLDS
        relevance.run(config, workdir / f"shop-{seed}")
        measured, count = measure(workdir / f"shop-{seed}")
        estimates.append({"seed": seed} | of_run(workdir / f"shop-{seed}"))
        pairs.append(count)
        for name, values in measured.items():
            found.setdefault(name, []).append(values)
    return {
        "seeds": list(SEEDS),
        "pairs": pairs,
        "planted": 0.2,
        "estimates": estimates,
        "rankings": {
            name: {
                column: {
                    "mean": float(np.mean([one[column] for one in values])),
                    "shops": [one[column] for one in values],
                }
                for column in values[0]
            }
            for name, values in found.items()
        },
    }


def of_run(workdir: Path) -> dict[str, Any]:
    """`estimated` of a run with folds, of the pairs whose labels may be wrong."""
    found = pq.read_table(workdir / "out_of_fold.parquet")
    found = found.filter(pc.not_equal(found["split"], "test"))
    pairs = pq.read_table(workdir / "data" / "pairs.parquet")
    truths = dict(zip(pairs["example_id"].to_pylist(), pairs["truth"].to_pylist(), strict=True))
    columns = {name: found[name].to_numpy() for name in found.column_names}
    p = probabilities({name: columns[name] for name in columns if name.startswith(PROBABILITY)})
    p = p.astype(np.float64) / p.sum(1, keepdims=True, dtype=np.float64)
    truth = np.array([truths[one] for one in columns["example_id"]])
    query = np.unique(columns["query_id"], return_inverse=True)[1]
    return estimated(p, columns["label"], truth, query)


def measure(workdir: Path) -> tuple[dict[str, Any], int]:
    """For each ranking AUROC and precision among the first, and how many pairs were ranked."""
    found = pq.read_table(workdir / "out_of_fold.parquet")
    found = found.filter(np.asarray(found["fold"]) >= 0)
    pairs = pq.read_table(workdir / "data" / "pairs.parquet")
    truths = dict(zip(pairs["example_id"].to_pylist(), pairs["truth"].to_pylist(), strict=True))
    ids = found["example_id"].to_pylist()
    labels, fold = found["label"].to_numpy(), found["fold"].to_numpy()
    wrong = np.array([truths[one] for one in ids]) != labels
    p = probabilities({name: found[name].to_numpy() for name in found.column_names})

    rankings = {}
    for score in importance.SCORES:
        hardness = np.asarray(importance.hardness(score, found[score].to_numpy()))
        rankings[score] = hardness
        rankings[f"{score}, rank within the fold"] = within(hardness, fold)
    listed = audit.read(workdir / "audit.csv", most=10**9)
    place = {row["example_id"]: number for number, row in enumerate(listed)}
    rankings["audit.csv"] = -np.array([place[one] for one in ids], float)
    for method in label_errors.SCORES:
        rankings[f"cleanlab, {method}"] = quality(p, labels, method)
    return {name: precision(order, wrong) for name, order in rankings.items()}, len(ids)


def quality(probabilities: np.ndarray, labels: np.ndarray, method: str) -> np.ndarray:
    """How hard each pair is by cleanlab."""
    # it checks that rows have the sum 1 more narrowly than float32 keeps it
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(1, keepdims=True)
    return -np.asarray(get_label_quality_scores(labels, exact, method=method))


def within(hardness: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """The share of its fold's pairs that a pair is harder than."""
    ranks = np.zeros(len(hardness))
    for number in np.unique(fold):
        rows = np.flatnonzero(fold == number)
        ranks[rows] = detection.midranks(hardness[rows]) / len(rows)
    return ranks


def precision(hardness: np.ndarray, wrong: np.ndarray) -> dict[str, float | None]:
    """AUROC, and the share of wrong labels among the hardest 1, 2, 5 and 10 % of pairs."""
    order = np.argsort(-hardness, kind="stable")
    found: dict[str, float | None] = {"auroc": None}
    if wrong.any():
        found["auroc"] = float(detection.auroc(hardness, wrong))
    for share in SHARES:
        found[f"{share:.0%}"] = float(wrong[order[: int(share * len(order))]].mean())
    return found


PARTS: dict[str, Callable[[Path], Any]] = {
    "cells": of_shops,
    "weak": of_weak_models,
    "coverage": coverage,
    "round_trip": round_trips,
    "few_queries": trips_with_few_queries,
    "encoder": of_encoder,
}
"""What is measured, by its name in the results."""


if __name__ == "__main__":
    main()
