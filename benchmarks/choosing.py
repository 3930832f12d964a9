"""What `importance.policy=auto` chooses, whether its trials tell the truth, and what it gains.

    python benchmarks/choosing.py --workdir=runs/choosing

Generated shops and models like those of configs/shop.py, but smaller, under four faults: single
labels wrong as a weak model would err (`confusion`), whole queries labelled carelessly
(`annotator`), exact items labelled irrelevant (`missing_positive`), and none. In each, `auto`
chooses with the defaults of the product, and then uniform training, what was chosen, and the
contender of the last round are trained as runs that are deployed are: on all training pairs, from
their seed's start.

*Bias* is what the last round said of the contender (its nDCG@10 less uniform's on held-out queries,
with their labels as they are) less what its deployed run does by the same measure: nDCG@10 less
uniform's on the validation queries, whose labels are as wrong and which chose nothing. *Gain* is
that of what was chosen on test queries, whose labels are right. *Headroom* is that of uniform on
right labels less uniform's. Intervals are Student's t over shops: each brings its own words,
queries, errors and seed.

Every shop and fault is a file in WORKDIR/cells: a stop costs the one it was in, and several
processes may work on different shops (--shops). Leaves benchmarks/results/choosing.json of all that
are there.
"""

import argparse
import runpy
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from interleaved import machine
from rich.console import Console
from same_results import commit_of

from sie_jax.config import Config
from sie_jax.evaluation import claims, from_columns
from sie_jax.evaluation.verdict import by_query
from sie_jax.files import read_json, write_json
from sie_jax.importance.choosing import UNIFORM, Candidate
from sie_jax.recipes import relevance
from sie_jax.stages.choose import choose
from sie_jax.stages.cross_fit import cross_fit
from sie_jax.stages.pair_runs import Start, judged
from sie_jax.stages.score import score
from sie_jax.stages.train import Trained, train
from sie_jax.training.run import Run, Weighting

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "choosing.json"
FAULTS = {"none": 0.0, "confusion": 0.2, "annotator": 0.2, "missing_positive": 0.15}
"""Kinds of noise (`data/sources/market/noise.py`) and the share of labels that each makes wrong."""
SHOPS = range(20)
QUERIES, ITEMS, EPOCHS, FOLDS = 400, 12, 6, 2


def config_of(fault: str, shop: int, pretrained: str) -> Config:
    """The shop, with `auto` and folds of the training queries."""
    config: Config = runpy.run_path(str(ROOT / "configs" / "shop.py"))["get_config"]()
    config.name = f"choosing-{fault}-{shop}"
    config.data.synthetic.queries, config.data.synthetic.items_per_query = QUERIES, ITEMS
    config.data.synthetic.noise = FAULTS[fault]
    config.data.synthetic.noise_kind = "uniform" if fault == "none" else fault
    config.data.synthetic.dirt = 0.0
    config.data.synthetic.seed = config.train.seed = 100 + shop
    config.train.epochs, config.train.folds = EPOCHS, FOLDS
    config.train.checkpoint_every = 10_000
    config.train.batch_size, config.train.learning_rate = 64, 3e-3
    config.model.hidden_size, config.model.num_hidden_layers = 32, 1
    config.model.intermediate_size = 64
    # one shape for all shops, so that each program is compiled once
    config.data.max_length, config.data.buckets, config.data.vocabulary_size = 24, 1, 512
    config.importance.policy = "auto"
    config.model.pretrained = pretrained
    config.pretrain.steps = 0 if pretrained else 500
    return config


def pretrained_on(shop: int, folder: Path) -> str:
    """A checkpoint pretrained on the texts of a shop, which no fault changes."""
    config = config_of("none", shop, "")
    with relevance.opened(config, folder, console=Console(quiet=True)) as workdir:
        start = relevance.started(config, workdir)
        assert start.pretrained is not None
        return start.pretrained.value


def cell(fault: str, shop: int, pretrained: str, folder: Path) -> dict[str, Any]:
    """What `auto` chose in one shop, and how deployed runs do."""
    config = config_of(fault, shop, pretrained)
    with relevance.opened(config, folder, console=Console(quiet=True)) as workdir:
        start = relevance.started(config, workdir)
        held_out = cross_fit(workdir, start, folds=FOLDS, split_seed=config.data.split_seed)
        choose(
            workdir,
            start,
            held_out,
            importance=config.importance,
            split_seed=config.data.split_seed,
            evaluation=config.evaluation,
        )
        choice = read_json(workdir.folder / "choosing.json")
        named = {name: choice[name] for name in ("chosen", "contender") if choice[name]}
        candidates = {Candidate.from_json(one) for one in named.values()}
        further = {one.score for one in candidates if one.score == "doubtful_groups"}
        scored = score(
            workdir,
            start,
            held_out if further else None,
            estimators=tuple(further),
            warmup_epochs=config.importance.warmup_epochs,
        )
        deployed = {}
        for candidate in sorted({UNIFORM, *candidates}, key=lambda one: one.name):
            section = config.importance.with_candidate(candidate)
            weighting = Weighting()
            if candidate != UNIFORM:
                weighting = Weighting("weights", candidate.score, candidate.policy.name)
            slug = "".join(one if one.isalnum() or one == "." else "_" for one in candidate.name)
            made = train(
                workdir,
                Run(f"{slug}-0", start.seed, start.train, weighting),
                start,
                None if candidate == UNIFORM else scored,
                data=config.data,
                importance=None if candidate == UNIFORM else section.only(candidate.policy.name),
            )
            deployed[candidate.name] = measured(start, made.value)
        return {"choice": choice, "deployed": deployed}


def measured(start: Start, run: Trained) -> dict[str, float]:
    """nDCG@10 on validation queries, whose labels may be wrong, and on right test labels."""
    prepared = start.prepared.value
    found = {}
    for split, columns in (("validation", run.validation), ("test", run.test)):
        predictions = {"run": [from_columns(columns, prepared.scale.gains)]}
        found[split] = float(np.nanmean(by_query(judged(prepared, split), predictions)["run"]))
    return found


def summary(cells: dict[str, dict[int, Any]]) -> dict[str, Any]:
    """By fault what was chosen, the bias of the trials, the gain and the headroom."""
    clean = {shop: _ndcg(one, UNIFORM.name) for shop, one in cells.get("none", {}).items()}
    result: dict[str, Any] = {}
    biases = []
    for fault, of in cells.items():
        chosen = {shop: one["choice"]["chosen"]["name"] for shop, one in of.items()}
        gains = [_ndcg(one, chosen[shop]) - _ndcg(one, "uniform") for shop, one in of.items()]
        departed = [
            gain for gain, name in zip(gains, chosen.values(), strict=True) if name != "uniform"
        ]
        bias = [_bias(one) for one in of.values() if one["choice"]["contender"]]
        biases += bias
        found = {
            "shops": sorted(of),
            "chosen": _counted(chosen.values()),
            "contenders": _counted(
                one["choice"]["contender"]["name"]
                for one in of.values()
                if one["choice"]["contender"]
            ),
            "trials": len(bias),
            "bias": _interval(bias),
            "gain": _interval(gains),
            "departed": len(departed),
            "gain_where_departed": _interval(departed),
            "spent": float(np.mean([one["choice"]["cost"]["spent"] for one in of.values()])),
        }
        if fault != "none":
            both = [shop for shop in of if shop in clean]
            room = [clean[shop] - _ndcg(of[shop], UNIFORM.name) for shop in both]
            found["headroom"] = _interval(room)
        result[fault] = found
    return {"faults": result, "bias": _interval(biases), "trials": len(biases)}


def _ndcg(one: dict[str, Any], run: str) -> float:
    return float(one["deployed"][run]["test"])


def _bias(one: dict[str, Any]) -> float:
    """The estimate of the last round less the difference of the deployed runs."""
    name, runs = one["choice"]["contender"]["name"], one["deployed"]
    deployed = runs[name]["validation"] - runs["uniform"]["validation"]
    return float(one["choice"]["interval"]["value"] - deployed)


def _interval(values: Sequence[float]) -> dict[str, float | None]:
    return claims.fixed(np.array(values, np.float64))


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, default=Path("runs/choosing"))
    parser.add_argument("--shops", type=int, nargs="*", default=list(SHOPS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    console = Console()
    folder = arguments.workdir / "cells"
    for shop in arguments.shops:
        for fault in FAULTS:
            file = folder / f"{fault}-{shop}.json"
            if file.exists():
                continue
            pretrained = pretrained_on(shop, arguments.workdir / "texts" / str(shop))
            of_cell = arguments.workdir / "runs" / f"{fault}-{shop}"
            found = cell(fault, shop, pretrained, of_cell)
            folder.mkdir(parents=True, exist_ok=True)
            write_json(file, {**found, "commit": commit_of("HEAD")})
            shutil.rmtree(of_cell)
            console.print(f"{fault} in shop {shop}: {found['choice']['chosen']['name']}")
        shutil.rmtree(arguments.workdir / "texts" / str(shop), ignore_errors=True)
    cells: dict[str, dict[int, Any]] = {fault: {} for fault in FAULTS}
    for file in sorted(folder.iterdir()):
        fault, _, shop = file.stem.rpartition("-")
        cells[fault][int(shop)] = read_json(file)
    content = {
        **machine(),
        "commit": commit_of("HEAD"),
        "queries": QUERIES,
        "items_per_query": ITEMS,
        "epochs": EPOCHS,
        "rates": FAULTS,
        **summary(cells),
    }
    write_json(arguments.out, content)


if __name__ == "__main__":
    main()
