"""What pretraining on a catalogue's own texts does: held-out perplexity, and ranking afterwards.

    python benchmarks/pretrain.py --data=FOLDER --pretrained=FOLDER

The ESCI sample by configs/esci.py, uniform weights, three seeds: from the checkpoint as it is, and
from the checkpoint after `--steps` steps of pretraining on all product texts and the training
queries with their titles. Intervals are 95 % bootstrap ones over the test queries, differences
paired. Can be stopped, and goes on with the same command. Leaves benchmarks/results/pretrain.json.
"""

import argparse
import copy
import runpy
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from sie_jax import pipeline
from sie_jax.config import Config
from sie_jax.devices import mesh as meshes
from sie_jax.evaluation import Predictions, from_probabilities
from sie_jax.files import read_json, write_json
from sie_jax.training.logs import MetricsLog

ROOT = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--pretrained", required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--workdir", type=Path, default=Path("runs/pretrain"))
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "pretrain.json"
    )
    arguments = parser.parse_args()
    base: Config = runpy.run_path(str(ROOT / "configs" / "esci.py"))["get_config"]()
    base.data.path, base.model.pretrained = arguments.data, arguments.pretrained
    further = copy.deepcopy(base)
    further.pretrain.steps, further.pretrain.batch_size = arguments.steps, 16
    console, mesh = Console(), meshes.make(base.mesh.data)
    runs: dict[str, list[Predictions]] = {}
    seconds: dict[str, float] = {}
    after = f"pretrained-{arguments.steps}"
    for name, config, folder in (("uniform", base, "uniform"), ("pretrained", further, after)):
        config.check()
        line = pipeline.prepare(config, arguments.workdir / folder, mesh, console)
        pipeline.pretrain(line)
        runs[name] = []
        for seed in range(config.train.seeds):
            state, _ = pipeline.fit_run(
                line, f"uniform-{seed}", seed=seed, epochs=config.train.epochs
            )
            probabilities = pipeline.predicted(line, state.params, "test")["probabilities"]
            runs[name].append(from_probabilities(probabilities, line.prepared.scale.gains))
            console.print(name, seed, "trained")
        clocks = [line.clock(f"uniform-{seed}").recorded for seed in range(config.train.seeds)]
        seconds[name] = float(np.mean(clocks))
    log = MetricsLog(arguments.workdir / after / "metrics.jsonl").read()
    results: dict[str, Any] = {
        "device": f"{mesh.size} × {jax.devices()[0].device_kind}",
        "pretraining": {
            "batch_size": further.pretrain.batch_size,
            "learning_rate": further.pretrain.learning_rate,
            **read_json(arguments.workdir / after / "pretraining" / "held_out.json"),
            "curve": [entry for entry in log if "held_out_perplexity" in entry],
        },
        "seconds_a_seed": seconds,
        **pipeline.summarized(line, "test", runs),
    }
    write_json(arguments.out, results)
    console.print(results["test"], results["difference"])


if __name__ == "__main__":
    main()
