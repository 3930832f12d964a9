"""Planted label noise in the synthetic shop: which scores find it, and which policies withstand it.

    python benchmarks/noise.py --workdir=runs/noise

For 0, 20 and 40 % wrong labels: configs/shop.py on a shop of 1,000 queries, three epochs,
three seeds, `uniform`, `proportional` and `clipped` weights from the same scores. The same
command resumes what was stopped. Leaves benchmarks/results/noise.json.
"""

import argparse
import runpy
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from sie_jax import importance
from sie_jax.config import Config
from sie_jax.data import preparing
from sie_jax.evaluation import detection, intervals
from sie_jax.files import write_json
from sie_jax.recipes import relevance
from sie_jax.tables import parts

ROOT = Path(__file__).parent.parent
RATES = (0.0, 0.2, 0.4)
METRICS = ("ndcg@10", "accuracy", "macro_f1")
RESAMPLES = 200


def config_for(rate: float) -> Config:
    """configs/shop.py at a noise rate, smaller, with three seeds and both policies."""
    config: Config = runpy.run_path(str(ROOT / "configs" / "shop.py"))["get_config"]()
    config.name = f"noise-{rate:g}"
    config.data.synthetic.noise = rate
    config.data.synthetic.queries = 1000
    config.train.epochs = 3
    config.train.seeds = 3
    config.importance.policy = "clipped"
    config.importance.compare = ("proportional",)
    return config


def auroc_intervals(workdir: Path) -> dict[str, dict[str, float | None]]:
    """Each score's AUROC for the planted errors, its interval bootstrapped over queries."""
    training = preparing.load(workdir).split("train")
    table = parts.read(workdir / "importance.parquet")
    wrong = training["truth"].to_numpy() != training["label"].to_numpy()
    _, query = np.unique(training["query_id"].to_pylist(), return_inverse=True)
    rows_of = np.split(np.argsort(query, kind="stable"), np.cumsum(np.bincount(query))[:-1])
    blocks = intervals.resampling(len(rows_of), resamples=RESAMPLES, seed=0)
    draws = [
        np.concatenate([rows for rows, n in zip(rows_of, counts, strict=True) for _ in range(n)])
        for block in blocks
        for counts in block
    ]
    found = {}
    for name in importance.SCORES:
        hardness = importance.hardness(name, table[name].to_numpy())
        samples = np.array([detection.auroc(hardness[rows], wrong[rows]) for rows in draws])
        found[name] = intervals.interval(detection.auroc(hardness, wrong), samples)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, default=Path("runs/noise"))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "noise.json")
    arguments = parser.parse_args()
    results: dict[str, Any] = {"device": "", "rates": {}}
    shown = Table(title="Test split, mean of three seeds, 95 % bootstrap intervals over queries")
    for column in ("noise", "run", *METRICS, "ndcg@10 − uniform"):
        shown.add_column(column)
    for rate in RATES:
        workdir = arguments.workdir / f"{rate:g}"
        metrics = relevance.run(config_for(rate), workdir)
        results["device"] = metrics["device"]
        runs = {"clipped" if run == "weighted" else run: run for run in metrics["test"]}
        results["rates"][f"{rate:g}"] = {
            "planted": metrics["planted_errors"] and metrics["planted_errors"]["rate"],
            "auroc": auroc_intervals(workdir) if metrics["planted_errors"] else None,
            **{
                part: {
                    name: metrics[part][run] for name, run in runs.items() if run in metrics[part]
                }
                for part in ("test", "difference", "seeds", "cost")
            },
        }
        write_json(arguments.out, results)
        for name, run in runs.items():
            cells = [_text(metrics["test"][run][metric]) for metric in METRICS]
            difference = metrics["difference"].get(run)
            shown.add_row(
                f"{rate:.0%}", name, *cells, _text(difference["ndcg@10"]) if difference else ""
            )
    console = Console()
    console.print(shown)
    for rate_name, result in results["rates"].items():
        for score, estimate in (result["auroc"] or {}).items():
            console.print(f"noise {rate_name}: AUROC of {score} {_text(estimate)}")


def _text(estimate: dict[str, float | None]) -> str:
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    assert value is not None
    assert low is not None
    assert high is not None
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
