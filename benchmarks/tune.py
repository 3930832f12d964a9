"""Uniform training at several learning rates, measured on validation queries alone.

    python benchmarks/tune.py --data=FOLDER --pretrained=FOLDER --rates=2e-5,5e-5,1e-4

How the settings of configs/esci.py were chosen: of the data set's training queries, 30 % are held
out here and the rest trained on; the test queries are read, and nothing is measured on them. The
same command resumes what was stopped. Leaves benchmarks/results/tune.json.
"""

import argparse
import dataclasses
import runpy
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from sie_jax.config import Config
from sie_jax.files import write_json
from sie_jax.recipes import relevance
from sie_jax.stages.tune import tune
from sie_jax.training import logs

ROOT = Path(__file__).parent.parent
VALIDATION = 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--pretrained", required=True)
    parser.add_argument("--rates", default="2e-5,5e-5,1e-4")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workdir", type=Path, default=Path("runs/tune"))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "tune.json")
    arguments = parser.parse_args()
    config: Config = runpy.run_path(str(ROOT / "configs" / "esci.py"))["get_config"]()
    config.data.path, config.model.pretrained = arguments.data, arguments.pretrained
    config.data.validation = VALIDATION
    config.train.epochs = arguments.epochs
    rates = config.train.learning_rates = tuple(map(float, arguments.rates.split(",")))
    console = Console()
    with relevance.opened(config, arguments.workdir, console=console) as opened:
        start = relevance.started(config, opened)
        evaluation = dataclasses.replace(config.evaluation, explained_queries=0, changed_queries=0)
        tune(opened, start, learning_rates=rates, evaluation=evaluation)
        devices, log = opened.mesh.size, logs.read(opened.folder / "metrics.jsonl")
    prepared = start.prepared.value
    results: dict[str, Any] = {
        "device": f"{devices} × {jax.devices()[0].device_kind}",
        "queries": {
            split: len(set(prepared.split(split)["query_id"].to_pylist()))
            for split in ("train", "validation")
        },
        "validation_pairs": prepared.split("validation").num_rows,
        "rates": {str(rate): [] for rate in rates},
    }
    for entry in log:
        if "epoch" in entry and "validation_loss" in entry:
            rate = entry["run"].removeprefix("rate_").replace("m", "-")
            if rate in results["rates"]:
                results["rates"][rate].append(entry)
    write_json(arguments.out, results)
    console.print(results["rates"])


if __name__ == "__main__":
    main()
