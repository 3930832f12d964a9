"""What `importance.policy=auto` chooses, and how every policy does, on the synthetic shop.

    python benchmarks/choosing.py --workdir=runs/choosing [--seeds=0,1,2,3,4] [--no-policies]
    python benchmarks/choosing.py --workdir=runs/other_seeds --seeds=5,6,7,8,9 --no-policies \\
        --out=benchmarks/results/choosing_other_seeds.json

For 0, 20 and 40 % uniform noise and each seed: a shop, that of configs/shop.py, pretrained on the
shop's texts, and `auto` within the default budget, at 40 % once more with the oracle among its
candidates, which leaves out exactly the wrong labels. Then, from the same initial parameters and
for as many steps, uniform training, what was chosen, the oracle, and uniform training on the labels
without noise; last, every policy, learned weights and sampling. nDCG@10 on the test queries, whose
labels have no noise, and accuracy; differences from uniform paired over seeds. `yardsticks` says
why accuracy decides: the oracle's difference from uniform on the test queries, their labels made as
wrong as the training's, by either metric. The second command is for seeds that were not looked at
when the rounds of `auto` were planned.

Every run is a file in WORKDIR/cells: a stop costs the run it was in, and several processes may work
on different seeds. Leaves benchmarks/results/choosing.json, or what --out names, of all seeds in
WORKDIR.
"""

import argparse
import itertools
import runpy
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from sie_jax import importance
from sie_jax.config import Config
from sie_jax.devices import mesh as meshes
from sie_jax.evaluation import Predictions, from_probabilities, intervals
from sie_jax.evaluation.intervals import Judgments, summarize
from sie_jax.evaluation.predictions import probabilities as probabilities_of
from sie_jax.files import read_json, whole, write_json
from sie_jax.importance import choosing, modifiers, policies, sampling
from sie_jax.recipes import relevance
from sie_jax.stages.choose import Trials
from sie_jax.stages.pair_runs import Examples, PairRuns, Start, summarized
from sie_jax.stages.score import Scores, score
from sie_jax.training.run import Run, Weighting
from sie_jax.workdir import Job, Workdir

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "choosing.json"
RATES, SEEDS = (0.0, 0.2, 0.4), (0, 1, 2, 3, 4)
QUERIES, EPOCHS = 600, 8
MARGIN = 0.005
ORACLE = choosing.Candidate("oracle", policies.Keep(fraction=0.5))
POLICIES = (
    choosing.Candidate("grad_norm", policies.Clipped()),
    choosing.Candidate("el2n", policies.Keep(fraction=0.8)),
    choosing.Candidate("margin", policies.Keep(fraction=0.6)),
    choosing.Candidate("loss", policies.Tempered(power=-0.5)),
    choosing.Candidate("loss", policies.Inverse()),
    choosing.Candidate("grad_norm", policies.Proportional()),
    choosing.Candidate("grad_norm", policies.Ranked()),
    choosing.Candidate("loss", policies.Banded()),
    choosing.Candidate("el2n", policies.KeepHardest(fraction=0.8)),
)
METRICS = ("ndcg@10", "accuracy", "macro_f1")


def config_for(rate: float, seed: int, pretrained: str) -> Config:
    """The shop for more epochs, enough to learn wrong labels by heart, with `auto`."""
    config: Config = runpy.run_path(str(ROOT / "configs" / "shop.py"))["get_config"]()
    config.name = f"choosing-{rate:g}-{seed}"
    config.data.synthetic.queries = QUERIES
    config.data.synthetic.noise = rate
    config.data.synthetic.seed = config.train.seed = seed
    config.train.epochs = EPOCHS
    config.importance.policy = "auto"
    config.model.pretrained = pretrained
    config.pretrain.steps = 0 if pretrained else 1000
    return config


class Shop(NamedTuple):
    """An open workdir in which the pairs of one shop are prepared, and what its runs start from."""

    config: Config
    opened: Workdir
    start: Start

    def runs(self, job: str, names: str) -> PairRuns:
        """Training runs of these names, as one job that keeps its costs under `job`."""
        return PairRuns(Job(self.opened, job, runs=(names,)), self.start)


@contextmanager
def shop(rate: float, seed: int, pretrained: str, workdir: Path) -> Iterator[Shop]:
    """The shop of a rate and a seed, its data in `workdir`."""
    config = config_for(rate, seed, pretrained)
    console, mesh = Console(quiet=True), meshes.make(1)
    with relevance.opened(config, workdir, console=console, mesh=mesh) as opened:
        yield Shop(config, opened, relevance.started(config, opened))


def pretrained_on(seed: int, workdir: Path) -> str:
    """A checkpoint pretrained on the texts of a shop, which do not depend on its noise."""
    with shop(0.0, seed, "", workdir) as made:
        assert made.start.pretrained is not None
        return made.start.pretrained.value


def wrong_labels(start: Start) -> np.ndarray:
    """Which training pairs have a label that is not the truth, float32 `[N]`."""
    training = start.prepared.value.split("train")
    return (training["truth"].to_numpy() != training["label"].to_numpy()).astype(np.float32)


def weights_of(candidate: choosing.Candidate, scores: Scores) -> np.ndarray:
    """A candidate's offline weights `[N]`, mean 1."""
    column = jnp.asarray(scores.column(candidate.score))
    weights = candidate.policy(importance.hardness(candidate.score, column))
    return np.asarray(weights, np.float32) * len(column)


def run_cell(
    rate: float, seed: int, pretrained: str, folder: Path, cell: Path, *, all_policies: bool
) -> None:
    """Leaves in `cell` a file for each thing that one shop and noise rate shows."""
    if rate == 0.4:
        with shop(rate, seed, pretrained, folder / "oracle") as other:
            candidates = (ORACLE, *choosing.CANDIDATES)
            further = {"oracle": wrong_labels(other.start)}
            chosen_by(other, cell / "choice with the oracle.json", candidates, further)
    with shop(rate, seed, pretrained, folder / "auto") as made:
        chosen = chosen_by(made, cell / "choice.json", choosing.CANDIDATES, {})
        predictions = run_options(made, rate, chosen, cell, all_policies=all_policies)
        if rate:
            runs = {name: predictions[name] for name in ("uniform", "oracle")}
            write_json(cell / "yardsticks.json", yardsticks(made, rate, seed, runs))


def run_options(
    made: Shop, rate: float, chosen: choosing.Candidate, cell: Path, *, all_policies: bool
) -> dict[str, list[Predictions]]:
    """What each training run of a shop predicts for the test pairs; left in `cell` too."""
    options: dict[str, tuple[Weighting, Examples]] = {"uniform": (Weighting(), Examples())}
    if rate:
        right = 1 - wrong_labels(made.start)
        weights = (right / np.mean(right)).astype(np.float32)
        options["oracle"] = Weighting("weights", "oracle", "keep"), Examples(weights=weights)
    tried = dict.fromkeys((chosen, *(POLICIES if all_policies else ())))
    squares = None
    if set(tried) != {choosing.UNIFORM}:
        scores = score(
            made.opened,
            made.start,
            None,
            estimators=(),
            warmup_epochs=made.config.importance.warmup_epochs,
        ).value
        for candidate in tried:
            if candidate != choosing.UNIFORM:
                weighting = Weighting("weights", candidate.score, candidate.policy.name)
                weights = weights_of(candidate, scores)
                options[candidate.name] = weighting, Examples(weights=weights)
        if all_policies:
            norms = scores.column("grad_norm")
            squares = norms.astype(np.float64) ** 2
            options["learned, loss"] = Weighting("learned", "loss"), Examples()
            policy = modifiers.Mixed(policy=policies.Proportional(), uniform=0.1)
            drawn = sampling.probabilities(np.asarray(policy(jnp.asarray(norms))))
            weighting = Weighting("sampling", "grad_norm", "proportional")
            options["grad_norm sampling"] = weighting, Examples(probabilities=drawn)
    predictions, pairs = {}, made.start.prepared.value
    for number, (name, (weighting, examples)) in enumerate(options.items()):
        file = cell / f"{name}.npy"
        if not file.exists():
            run = Run(f"run_{number}-0", made.start.seed, made.start.train, weighting)
            probabilities = trained(made, run, examples)
            with whole(file) as temporary, temporary.open("wb") as opened:
                np.save(opened, probabilities)
        predictions[name] = [from_probabilities(np.load(file), pairs.scale.gains)]
        found: dict[str, Any] = {"metrics": measured(made, predictions[name])}
        shares = examples.weights if examples.probabilities is None else examples.probabilities
        if shares is not None and squares is not None:
            found["amount"] = amount(shares.astype(np.float64), squares)
        write_json(file.with_suffix(".json"), found)
    return predictions


def chosen_by(
    made: Shop,
    file: Path,
    candidates: Sequence[choosing.Candidate],
    further: Mapping[str, np.ndarray],
) -> choosing.Candidate:
    """What `auto` chooses, as `file` says or will say."""
    if not file.exists():
        runs = made.runs("choosing", "choosing_*")
        config = made.config
        trials = Trials(runs, config.importance, config.data.split_seed, further)
        choice = trials.choose(candidates, config.evaluation)
        write_json(file, choice.as_json())
        runs.job.clear()
    return choosing.Candidate.from_json(read_json(file)["chosen"])


def measured(made: Shop, predictions: list[Predictions]) -> dict[str, float]:
    """A run's metrics on the test queries."""
    pairs, evaluation = made.start.prepared.value, made.config.evaluation
    several = {"uniform": predictions}
    found = summarized(pairs, "test", several, evaluation=evaluation)["test"]["uniform"]
    return {metric: found[metric]["value"] for metric in METRICS}


def yardsticks(
    made: Shop, rate: float, seed: int, runs: dict[str, list[Predictions]]
) -> dict[str, Any]:
    """The oracle's difference from uniform on test queries whose labels are as wrong."""
    pairs = made.start.prepared.value
    test, scale = pairs.split("test"), pairs.scale
    truth, generator = test["label"].to_numpy(), np.random.default_rng(seed)
    other = (truth + generator.integers(1, len(scale.names), len(truth))) % len(scale.names)
    labels = np.where(generator.random(len(truth)) < rate, other, truth)
    judgments = Judgments(
        labels,
        test["query_id"].to_pylist(),
        test["example_id"].to_pylist(),
        scale.names,
        scale.gains,
    )
    found = summarize(
        judgments,
        runs,
        resamples=made.config.evaluation.resamples,
        seed=seed,
    )["difference"]["oracle"]
    return {metric: found[metric] for metric in METRICS}


def trained(made: Shop, run: Run, examples: Examples) -> np.ndarray:
    """The class probabilities `[N, K]` of the test pairs by one training run."""
    runs = made.runs("options", "run_*")
    state = runs.fit(run, examples, judges=None)
    shutil.rmtree(runs.job.run_folder(run.name))
    return probabilities_of(runs.predicted(state.params, "test"))


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
    seeds = sorted({int(cell.name.split("-")[1]) for cell in (workdir / "cells").iterdir()})

    def runs_of(rate: float) -> dict[str, dict[int, Any]]:
        """Of each run what its file says, by seed; `auto` is the run of what it chose."""
        found: dict[str, dict[int, Any]] = {}
        for seed in seeds:
            cell = workdir / "cells" / f"{rate:g}-{seed}"
            for file in sorted(cell.glob("*.npy")):
                found.setdefault(file.stem, {})[seed] = read_json(file.with_suffix(".json"))
            if (cell / "choice.json").exists():
                name = read_json(cell / "choice.json")["chosen"]["name"]
                if seed in found.get(name, {}):
                    found.setdefault("auto", {})[seed] = found[name][seed]
        return found

    clean = runs_of(0.0).get("uniform", {})
    result: dict[str, Any] = {}
    for rate in RATES:
        runs = runs_of(rate) | ({"clean labels": clean} if rate else {})
        uniform, cleaned = runs.get("uniform", {}), clean if rate else {}
        table = {
            name: {
                "seeds": sorted(of),
                **{m: [of[seed]["metrics"][m] for seed in sorted(of)] for m in METRICS},
                **beside(of, uniform, cleaned, "ndcg@10"),
                "by_accuracy": beside(of, uniform, cleaned, "accuracy"),
                **next((one["amount"] for one in of.values() if "amount" in one), {}),
            }
            for name, of in runs.items()
        }
        chosen: dict[str, list[dict[str, Any]]] = {}
        yardsticks_of = []
        for seed in seeds:
            cell = workdir / "cells" / f"{rate:g}-{seed}"
            for file in sorted(cell.glob("choice*.json")):
                one = read_json(file)
                chosen.setdefault(file.stem, []).append(
                    {
                        "seed": seed,
                        "name": one["chosen"]["name"],
                        "contender": (one["contender"] or {}).get("name"),
                        "interval": one["interval"],
                        "queries": one["comparison"][-1]["queries"],
                        "cost": one["cost"]["spent"],
                    }
                )
            if (cell / "yardsticks.json").exists():
                yardsticks_of.append(read_json(cell / "yardsticks.json"))
        result[f"{rate:g}"] = {"chosen": chosen, "runs": table, "yardsticks": yardsticks_of}
    return result


def beside(
    of: dict[int, Any], uniform: dict[int, Any], clean: dict[int, Any], metric: str
) -> dict[str, Any]:
    """A run's difference from uniform, and its share of what clean labels gain, where they do."""
    difference, gap = (paired_over_seeds(each, uniform, metric) for each in (of, clean))
    closed = None
    # a gap that is not shown to be there cannot be closed, and other seeds have another
    if gap and difference and gap["low"] > 0 and set(of) == set(uniform) == set(clean):
        closed = difference["value"] / gap["value"]
    return {"difference": difference, "gap_closed": closed}


def paired_over_seeds(
    of: dict[int, Any], reference: dict[int, Any], metric: str
) -> dict[str, Any] | None:
    """The mean difference in a metric over the seeds that both have, with its 90 % interval and the
    two one-sided tests; None of fewer than two."""
    seeds = sorted(of.keys() & reference.keys())
    if len(seeds) < 2:
        return None
    ours, theirs = (
        np.array([each[seed]["metrics"][metric] for seed in seeds]) for each in (of, reference)
    )
    return dict(intervals.equivalence(ours - theirs, margin=MARGIN))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, default=Path("runs/choosing"))
    parser.add_argument("--seeds", default=",".join(str(seed) for seed in SEEDS))
    parser.add_argument("--no-policies", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    console = Console()
    seeds = [int(one) for one in arguments.seeds.split(",")]
    # what `auto` chose in all seeds first, then the policies, which take longer
    for all_policies in (False,) if arguments.no_policies else (False, True):
        for rate, seed in itertools.product((0.4, 0.0, 0.2), seeds):
            pretrained = pretrained_on(seed, arguments.workdir / f"texts-{seed}")
            name = f"{rate:g}-{seed}"
            folder, cell = (arguments.workdir / one / name for one in ("runs", "cells"))
            run_cell(rate, seed, pretrained, folder, cell, all_policies=all_policies)
            console.print(f"{name} is done")
    write_json(
        arguments.out,
        {
            "device": jax.devices()[0].device_kind,
            "queries": QUERIES,
            "epochs": EPOCHS,
            "margin": MARGIN,
            "rates": summary(arguments.workdir),
        },
    )


if __name__ == "__main__":
    main()
