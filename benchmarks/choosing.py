"""What `importance.policy=auto` chooses, and how every policy does, on the synthetic shop.

    python benchmarks/choosing.py --workdir=runs/choosing [--seeds=0,1,2,3,4]

For 0, 20 and 40 % uniform noise and each seed: a shop, the quickstart's model pretrained on the
shop's texts, `auto` within the default budget, and, from the same initial parameters and for as
many steps, uniform training, what was chosen, every policy, learned weights, sampling, an oracle
that leaves out exactly the wrong labels, and uniform training on the
labels without noise. At 40 % `auto` chooses again with the oracle among the candidates. nDCG@10 on
the test queries, whose labels have no noise; differences from uniform paired over seeds. Every cell
is a file in WORKDIR/cells: a stop costs the run it was in, and several processes may work on
different seeds. Leaves benchmarks/results/choosing.json.
"""

import argparse
import copy
import runpy
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from rich.console import Console

from sie_jax import importance, pipeline
from sie_jax.config import Config
from sie_jax.evaluation import Predictions, from_probabilities, intervals
from sie_jax.files import read_json, write_json
from sie_jax.importance import choosing, sampling
from sie_jax.training import mesh as meshes

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "choosing.json"
RATES, SEEDS = (0.0, 0.2, 0.4), (0, 1, 2, 3, 4)
QUERIES, EPOCHS = 300, 3
BUDGETS = (2.0,)
MARGIN = 0.005
ORACLE = choosing.Candidate("oracle", "keep", 0.5)
POLICIES = (
    choosing.Candidate("grad_norm", "clipped"),
    choosing.Candidate("el2n", "keep", 0.8),
    choosing.Candidate("margin", "keep", 0.6),
    choosing.Candidate("loss", "tempered", -0.5),
    choosing.Candidate("loss", "inverse"),
    choosing.Candidate("grad_norm", "proportional"),
    choosing.Candidate("grad_norm", "ranked"),
    choosing.Candidate("loss", "banded"),
    choosing.Candidate("el2n", "keep_hardest", 0.8),
)
METRICS = ("ndcg@10", "accuracy", "macro_f1")


def config_for(rate: float, seed: int, pretrained: str, budget: float) -> Config:
    """The quickstart on a smaller shop, with `auto`."""
    config: Config = runpy.run_path(str(ROOT / "configs" / "quickstart.py"))["get_config"]()
    config.name = f"choosing-{rate:g}-{seed}"
    config.data.synthetic.queries = QUERIES
    config.data.synthetic.noise = rate
    config.data.synthetic.seed = config.train.seed = seed
    config.train.epochs = EPOCHS
    config.importance.policy = "auto"
    config.importance.choosing_budget = budget
    config.model.pretrained = pretrained
    config.pretrain.steps = 0 if pretrained else 1000
    return config


def prepared(rate: float, seed: int, pretrained: str, budget: float, workdir: Path) -> Any:
    """The line of a run, its data in `workdir`."""
    config = config_for(rate, seed, pretrained, budget)
    return pipeline.prepare(config, workdir, meshes.make(1), Console(quiet=True))


def wrong_labels(line: Any) -> np.ndarray:
    """Which training pairs have a label that is not the truth, float32 `[N]`."""
    training = line.prepared.split("train")
    return (training["truth"].to_numpy() != training["label"].to_numpy()).astype(np.float32)


def weights_of(candidate: choosing.Candidate, table: pa.Table) -> np.ndarray:
    """A candidate's offline weights `[N]`, mean 1."""
    scores = jnp.asarray(table[candidate.score].to_numpy())
    policy = importance.POLICIES[candidate.policy]
    weights = policy(importance.hardness(candidate.score, scores), **candidate.options)
    return np.asarray(weights, np.float32) * len(scores)


def run_cell(rate: float, seed: int, pretrained: str, folder: Path) -> dict[str, Any]:
    """Everything that one shop and noise rate shows."""
    found: dict[str, Any] = {"choices": {}}
    lines, chosen = {}, {}
    for budget in BUDGETS:
        lines[budget] = prepared(rate, seed, pretrained, budget, folder / f"budget-{budget:g}")
        pipeline.choose(lines[budget])
        choice = read_json(folder / f"budget-{budget:g}" / "choosing.json")
        chosen[f"auto, budget {budget:g}"] = choosing.Candidate(
            *(choice["chosen"][name] for name in choosing.Candidate._fields)
        )
        found["choices"][f"{budget:g}"] = choice
    line = lines[BUDGETS[0]]
    wrong = wrong_labels(line)
    if rate == 0.4:
        for budget in BUDGETS:
            workdir = folder / f"oracle-{budget:g}"
            other = prepared(rate, seed, pretrained, budget, workdir)
            candidates = (ORACLE, *choosing.CANDIDATES)
            pipeline.choose(other, candidates, {"oracle": wrong})
            found["choices"][f"{budget:g}, oracle"] = read_json(workdir / "choosing.json")

    scored = line._replace(config=copy.deepcopy(line.config))
    scored.config.importance.policy = "clipped"  # of the weights in the table, which are not used
    table = pipeline.score(scored, None)
    options: dict[str, dict[str, Any]] = {"uniform": {}}
    for candidate in (*POLICIES, *chosen.values()):
        if candidate != choosing.UNIFORM:
            options[candidate.name] = {"weights": weights_of(candidate, table)}
    options["learned, loss"] = {"learned": True}
    norms = jnp.asarray(table["grad_norm"].to_numpy())
    mixed = importance.modifiers.mixed(
        importance.POLICIES["proportional"](norms), uniform=0.1, scores=norms
    )
    options["grad_norm sampling"] = {"probabilities": sampling.probabilities(np.asarray(mixed))}
    options["oracle"] = {"weights": ((1 - wrong) / np.mean(1 - wrong)).astype(np.float32)}
    runs: dict[str, list[Predictions]] = {}
    amounts = {}
    squares = np.asarray(norms, np.float64) ** 2
    for number, (name, given) in enumerate(options.items()):
        of = scored
        if "learned" in given:
            of = scored._replace(config=copy.deepcopy(scored.config))
            of.config.importance.score = "loss"
        runs[name] = [trained(of, f"run_{number}-0", seed, given)]
        shares = given.get("weights", given.get("probabilities"))
        if shares is not None:
            amounts[name] = amount(shares.astype(np.float64), squares)
    clean = prepared(0.0, seed, pretrained, BUDGETS[0], folder / "clean")
    runs["clean labels"] = [trained(clean, "clean-0", seed, {})]
    measured = pipeline.summarized(line, "test", runs)
    found["runs"] = {
        name: {metric: measured["test"][name][metric]["value"] for metric in METRICS}
        for name in runs
    }
    found["amounts"] = amounts
    # auto's run is that of what it chose
    for name, candidate in chosen.items():
        found["runs"][name] = found["runs"][candidate.name]
    found["wrong"] = float(wrong.mean())
    return found


def trained(line: Any, name: str, seed: int, given: dict[str, Any]) -> Predictions:
    """The test predictions of one training run."""
    state, _ = pipeline.fit_run(line, name, seed=seed, epochs=EPOCHS, validated=False, **given)
    shutil.rmtree(line.workdir / "checkpoints" / name)
    probabilities = pipeline.predicted(line, state.params, "test")["probabilities"]
    return from_probabilities(probabilities, line.prepared.scale.gains)


def amount(shares: np.ndarray, squares: np.ndarray) -> dict[str, float | None]:
    """The effective sample size as a share, and what sampling by these shares does to variance."""
    uniform = np.full(len(shares), 1 / len(shares))
    ratio = None
    if shares.all():
        own, plain = (
            sampling.gradient_variance(squares, p, squared_norm_of_mean=0.0)
            for p in (shares / shares.sum(), uniform)
        )
        ratio = own / plain
    size = sampling.effective_sample_size(shares) / len(shares)
    return {"effective_sample_size": size, "gradient_variance_ratio": ratio}


def summary(workdir: Path) -> dict[str, Any]:
    """By rate: what was chosen, and each run's mean and paired difference from uniform."""
    result: dict[str, Any] = {}
    for rate in RATES:
        files = [workdir / "cells" / f"{rate:g}-{seed}.json" for seed in SEEDS]
        cells = [read_json(file) for file in files if file.exists()]
        if not cells:
            continue
        names = [name for name in cells[0]["runs"] if all(name in cell["runs"] for cell in cells)]
        uniform = np.array([cell["runs"]["uniform"]["ndcg@10"] for cell in cells])
        clean = np.array([cell["runs"]["clean labels"]["ndcg@10"] for cell in cells])
        gap = paired_over_seeds(clean - uniform)
        table = {}
        for name in names:
            values = np.array([cell["runs"][name]["ndcg@10"] for cell in cells])
            table[name] = {
                "ndcg@10": values.tolist(),
                **{
                    metric: float(np.mean([cell["runs"][name][metric] for cell in cells]))
                    for metric in METRICS[1:]
                },
                "difference": paired_over_seeds(values - uniform),
                # a gap that is not shown to be there cannot be closed
                "gap_closed": float((values - uniform).mean() / gap["value"])
                if gap is not None and gap["low"] > 0
                else None,
                **cells[0]["amounts"].get(name, {}),
            }
        result[f"{rate:g}"] = {
            "chosen": {
                key: [
                    {
                        "name": cell["choices"][key]["chosen"]["name"],
                        "contender": (cell["choices"][key]["contender"] or {}).get("name"),
                        "interval": cell["choices"][key]["interval"],
                        "cost": cell["choices"][key]["cost"]["spent"],
                    }
                    for cell in cells
                ]
                for key in cells[0]["choices"]
            },
            "runs": table,
        }
    return result


def paired_over_seeds(differences: np.ndarray) -> dict[str, Any] | None:
    """The mean difference with its 90 % interval and the two one-sided tests; None of one seed."""
    if len(differences) < 2:
        return None
    return dict(intervals.equivalence(differences, margin=MARGIN))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, default=Path("runs/choosing"))
    parser.add_argument("--seeds", default=",".join(str(seed) for seed in SEEDS))
    arguments = parser.parse_args()
    console = Console()
    for seed in (int(one) for one in arguments.seeds.split(",")):
        texts = arguments.workdir / f"texts-{seed}"
        pipeline.pretrain(prepared(0.0, seed, "", BUDGETS[0], texts))
        pretrained = str(texts / "pretraining" / "model")
        for rate in (0.2, 0.4, 0.0):
            file = arguments.workdir / "cells" / f"{rate:g}-{seed}.json"
            if file.exists():
                continue
            folder = arguments.workdir / "runs" / file.stem
            write_json(file, run_cell(rate, seed, pretrained, folder))
            shutil.rmtree(folder)
            console.print(f"{file.stem} is done")
    write_json(
        RESULTS,
        {
            "device": jax.devices()[0].device_kind,
            "queries": QUERIES,
            "epochs": EPOCHS,
            "seeds": list(SEEDS),
            "margin": MARGIN,
            "rates": summary(arguments.workdir),
        },
    )


if __name__ == "__main__":
    main()
