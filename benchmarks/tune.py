"""Uniform training at several learning rates, measured on validation queries alone.

    python benchmarks/tune.py --data=FOLDER --pretrained=FOLDER --rates=2e-5,5e-5,1e-4

How the settings of configs/esci.py were chosen: of the data set's training queries, 30 % are held
out here and the rest trained on; the test queries are read, and nothing is measured on them. Can be
stopped, and goes on with the same command. Leaves benchmarks/results/tune.json.
"""

import argparse
import runpy
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from sie_jax import pipeline
from sie_jax.config import Config
from sie_jax.devices import mesh as meshes
from sie_jax.files import write_json
from sie_jax.training.logs import MetricsLog

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
    config.train.epochs, config.train.learning_rates = arguments.epochs, arguments.rates
    config.check()
    console = Console()
    line = pipeline.prepare(config, arguments.workdir, meshes.make(config.mesh.data), console)
    pipeline.tune(line)
    validation = line.prepared.split("validation")
    results: dict[str, Any] = {
        "device": f"{line.mesh.size} × {jax.devices()[0].device_kind}",
        "queries": {
            split: len(set(line.prepared.split(split)["query_id"].to_pylist()))
            for split in ("train", "validation")
        },
        "validation_pairs": validation.num_rows,
        "rates": {str(rate): [] for rate in config.train.learning_rates},
    }
    for entry in MetricsLog(line.metrics_log).read():
        if "epoch" in entry and "validation_loss" in entry:
            rate = entry["run"].removeprefix("rate_").replace("m", "-")
            if rate in results["rates"]:
                results["rates"][rate].append(entry)
    write_json(arguments.out, results)
    console.print(results["rates"])


if __name__ == "__main__":
    main()
