"""What pretraining on a catalogue's own texts does: held-out perplexity, and ranking afterwards.

    python benchmarks/pretrain.py --data=FOLDER --pretrained=FOLDER

The ESCI sample by configs/esci.py, uniform weights, three seeds: from the checkpoint as it is, and
from the checkpoint after `--steps` steps of pretraining on all product texts and the training
queries with their titles. Intervals are 95 % bootstrap ones over the test queries, differences
paired. The same command resumes what was stopped. Leaves benchmarks/results/pretrain.json.
"""

import argparse
import copy
import runpy
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from sie_jax.config import Config
from sie_jax.devices import mesh as meshes
from sie_jax.evaluation import Predictions, from_columns
from sie_jax.files import read_json, write_json
from sie_jax.recipes import relevance
from sie_jax.stages.pair_runs import summarized
from sie_jax.stages.train import train
from sie_jax.training import logs
from sie_jax.training.run import Run
from sie_jax.workdir.ledger import total

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
        with relevance.opened(
            config, arguments.workdir / folder, console=console, mesh=mesh
        ) as opened:
            start = relevance.started(config, opened)
            trained = [
                train(
                    opened,
                    Run(f"uniform-{seed}", seed, start.train),
                    start,
                    None,
                    data=config.data,
                    importance=None,
                )
                for seed in range(config.train.seeds)
            ]
        prepared = start.prepared.value
        runs[name] = [from_columns(made.value.test, prepared.scale.gains) for made in trained]
        seconds[name] = float(np.mean([total(made.cost).seconds for made in trained]))
    assert start.pretrained is not None  # of the runs from the pretrained checkpoint, the last ones
    log = logs.read(arguments.workdir / after / "metrics.jsonl")
    results: dict[str, Any] = {
        "device": f"{mesh.size} × {jax.devices()[0].device_kind}",
        "pretraining": {
            "batch_size": further.pretrain.batch_size,
            "learning_rate": further.pretrain.learning_rate,
            **read_json(arguments.workdir / after / "pretraining" / "held_out.json"),
            "seconds": total(start.pretrained.cost).seconds,
            "curve": [entry for entry in log if "held_out_perplexity" in entry],
        },
        "seconds_a_seed": seconds,
        **summarized(prepared, "test", runs, evaluation=base.evaluation),
    }
    write_json(arguments.out, results)
    console.print(results["test"], results["difference"])


if __name__ == "__main__":
    main()
