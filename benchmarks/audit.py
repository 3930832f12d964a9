"""How many of the labels that an audit ranks first are wrong, for each score.

    pip install -e '.[benchmark]'
    python benchmarks/audit.py --workdir=FOLDER

Three shops of 1,500 queries with 20 % wrong labels, the model of configs/shop.py, five folds: every
training pair is judged by a model that never saw its query. The pairs are ranked by each score as
it is and by its rank within the fold (models of different folds may differ in scale), by what
`audit.csv` ranks by, and by cleanlab from the same probabilities. Precision among the first 1, 2, 5
and 10 %. The same command resumes the runs in FOLDER. Writes benchmarks/results/audit.json.
"""

import argparse
import importlib.metadata
import runpy
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet as pq
from cleanlab.rank import get_label_quality_scores

from sie_jax import importance
from sie_jax.evaluation import audit, detection
from sie_jax.files import write_json
from sie_jax.recipes import relevance

RESULTS = Path(__file__).parent / "results" / "audit.json"
CONFIG = Path(__file__).parents[1] / "configs" / "shop.py"
SHOPS, SHARES, FOLDS = (1, 2, 3), (0.01, 0.02, 0.05, 0.1), 5
CLEANLAB = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True)
    workdir = parser.parse_args().workdir
    found: dict[str, list[dict[str, float]]] = {}
    pairs = []
    for shop in SHOPS:
        config = runpy.run_path(str(CONFIG))["get_config"]()
        config.data.synthetic.seed = shop
        config.train.folds = FOLDS
        relevance.run(config, workdir / f"shop-{shop}")
        measured, count = measure(workdir / f"shop-{shop}")
        pairs.append(count)
        for ranking, values in measured.items():
            found.setdefault(ranking, []).append(values)
    results = {
        "shops": list(SHOPS),
        "pairs": pairs,
        "planted": 0.2,
        "cleanlab": importlib.metadata.version("cleanlab"),
        "device": jax.devices()[0].device_kind,
        "rankings": {
            ranking: {
                name: {
                    "mean": float(np.mean([one[name] for one in values])),
                    "shops": [one[name] for one in values],
                }
                for name in values[0]
            }
            for ranking, values in found.items()
        },
    }
    write_json(RESULTS, results)
    columns = ("auroc", *(f"{share:.0%}" for share in SHARES))
    print("| ranked by | AUROC | " + " | ".join(columns[1:]) + " |")
    for ranking, values in results["rankings"].items():
        cells = " | ".join(f"{values[name]['mean']:.3f}" for name in columns)
        print(f"| {ranking} | {cells} |")


def measure(workdir: Path) -> tuple[dict[str, dict[str, float]], int]:
    """For each ranking AUROC and precision among the first, and how many pairs were ranked."""
    opinions = pq.read_table(workdir / "out_of_fold.parquet")
    opinions = opinions.filter(np.asarray(opinions["fold"]) >= 0)
    pairs = pq.read_table(workdir / "data" / "pairs.parquet")
    truths = dict(zip(pairs["example_id"].to_pylist(), pairs["truth"].to_pylist(), strict=True))
    ids = opinions["example_id"].to_pylist()
    labels, fold = opinions["label"].to_numpy(), opinions["fold"].to_numpy()
    wrong = np.array([truths[one] for one in ids]) != labels
    names = sorted(name for name in opinions.column_names if name.startswith("probability_"))
    probabilities = np.stack([opinions[name].to_numpy() for name in names], 1)

    rankings = {}
    for score in importance.SCORES:
        hardness = np.asarray(importance.hardness(score, opinions[score].to_numpy()))
        rankings[score] = hardness
        rankings[f"{score}, rank within the fold"] = within(hardness, fold)
    listed = [row["example_id"] for row in audit.read(workdir / "audit.csv", most=10**9)]
    place = {example_id: number for number, example_id in enumerate(listed)}
    rankings["audit.csv"] = -np.array([place[one] for one in ids], float)
    for method in CLEANLAB:
        # it checks that rows have the sum 1 more narrowly than float32 keeps it
        exact = probabilities.astype(np.float64)
        exact /= exact.sum(1, keepdims=True)
        quality = get_label_quality_scores(labels, exact, method=method)
        rankings[f"cleanlab, {method}"] = -quality
    return {name: precision(order, wrong) for name, order in rankings.items()}, len(ids)


def within(hardness: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """The share of its fold's pairs that a pair is harder than."""
    ranks = np.zeros(len(hardness))
    for number in np.unique(fold):
        rows = np.flatnonzero(fold == number)
        ranks[rows] = detection.midranks(hardness[rows]) / len(rows)
    return ranks


def precision(hardness: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    """AUROC, and the share of wrong labels among the hardest 1, 2, 5 and 10 % of pairs."""
    order = np.argsort(-hardness, kind="stable")
    found = {"auroc": float(detection.auroc(hardness, wrong))}
    for share in SHARES:
        found[f"{share:.0%}"] = float(wrong[order[: int(share * len(order))]].mean())
    return found


if __name__ == "__main__":
    main()
