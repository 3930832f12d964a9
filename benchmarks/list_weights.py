"""Does it help a listwise ranker to weight its pairs, or its lists, where labels are wrong?

    python benchmarks/list_weights.py
    python benchmarks/list_weights.py --kinds none annotator --seeds=6 --market=4 \\
        --only "keep, query, loss" "keep, query, chance" \\
        --out=benchmarks/results/list_weights_again.json

The quickstart's market of another seed, with 1,000 test queries whose labels are right, and a share
of the other labels wrong as each kind of noise says (`data/sources/market/noise.py`), or none.
Every run trains the task `listwise` from one pretrained encoder. Weights are made of the scores
after the warm-up, for each pair (`pair`) or one for all pairs of a query (`query`). `keep` leaves
out 30 %, and by `chance` lists drawn at random, which tells what fewer lists cost. Differences to
`uniform` of the same seeds are over queries and training seeds, and p values are Holm's over all of
them. `uniform` without noise is what a perfect cleaning would give. The second command takes what
was best of the first to a market that had no part in it. The same command resumes what was stopped.
Leaves benchmarks/results/list_weights.json.
"""

import argparse
import dataclasses
import itertools
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from interleaved import machine
from rich.console import Console
from rich.table import Table
from same_results import commit_of

from sie_jax.config import Config
from sie_jax.data.preparing import Prepared
from sie_jax.evaluation import claims, from_columns, intervals
from sie_jax.evaluation.slices import holm
from sie_jax.evaluation.verdict import by_query
from sie_jax.files import write_json
from sie_jax.importance.section import ImportanceConfig
from sie_jax.recipes import relevance
from sie_jax.stages.pair_runs import judged
from sie_jax.stages.score import Scores, score
from sie_jax.stages.train import train
from sie_jax.training.run import Run, Weighting
from sie_jax.workdir import Made

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "list_weights.json"
KINDS = {"none": 0.0, "annotator": 0.3, "missing_positive": 0.15}
"""The kinds of noise, and the share of labels that each makes wrong."""
KEPT = 0.7
POLICIES = ("clipped", "keep")
SCORES = (("pair", "grad_norm"), ("query", "grad_norm"), ("query", "loss"))
WEIGHTINGS = {
    f"{policy}, {level}, {score}": ImportanceConfig(
        policy=policy, level=level, score=score, keep_fraction=KEPT
    )
    for policy, (level, score) in itertools.product(POLICIES, SCORES)
}
CONTROLLED, CONTROL = "keep, query, loss", "keep, query, chance"


def config_of(kind: str, market: int) -> Config:
    """The quickstart's config on another market, with lists for a task."""
    config: Config = runpy.run_path(str(ROOT / "configs" / "quickstart.py"))["get_config"]()
    config.data.market.seed = market
    config.data.market.noise = KINDS[kind]
    config.data.market.noise_kind = "uniform" if kind == "none" else kind
    config.train.task = "listwise"
    return config


def by_chance(scored: Made[Scores], prepared: Prepared) -> Made[Scores]:
    """The scores with a random number for the loss, the same for all pairs of a query."""
    queries = prepared.split("train")["query_id"].to_pylist()
    distinct, query = np.unique(queries, return_inverse=True)
    drawn = np.random.default_rng(0).random(len(distinct)).astype(np.float32)[query]

    def read(made: Made[Scores]) -> Scores:
        table = scored.value.table
        at = table.schema.get_field_index("loss")
        return Scores(table.set_column(at, "loss", pa.array(drawn)), scored.value.origin)

    return dataclasses.replace(scored, id=f"{scored.id}-chance", reader=read)


def values_of(
    config: Config, folder: Path, weightings: Sequence[str], seeds: int, console: Console
) -> dict[str, np.ndarray]:
    """nDCG@10 `[S, Q]` on the test queries of each run's encoder."""
    with relevance.opened(config, folder, console=console) as workdir:
        start = relevance.started(config, workdir)
        prepared = start.prepared.value
        scored = score(workdir, start, None, estimators=(), warmup_epochs=1)
        found = {}
        for name in ("uniform", *weightings):
            weighting = WEIGHTINGS.get(CONTROLLED if name == CONTROL else name)
            scores = by_chance(scored, prepared) if name == CONTROL else scored
            kinds = Weighting()
            if weighting is not None:
                kinds = Weighting("weights", weighting.score, weighting.policy)
            slug = name.replace(", ", "-")
            runs = [
                train(
                    workdir,
                    Run(f"{slug}-{seed}", start.seed + seed, start.train, kinds),
                    start,
                    None if weighting is None else scores,
                    data=config.data,
                    importance=None if weighting is None else weighting.only(weighting.policy),
                )
                for seed in range(seeds)
            ]
            found[name] = [from_columns(run.value.test, prepared.scale.gains) for run in runs]
    rows = by_query(judged(prepared, "test"), found)
    return {name: np.asarray(values) for name, values in rows.items()}


def summary(values: dict[str, dict[str, np.ndarray]]) -> dict[str, Any]:
    """Of each kind and run nDCG@10, and less `uniform`; Holm over all differences."""
    clean = values["none"]["uniform"]
    result: dict[str, Any] = {
        kind: {
            name: {
                "ndcg@10": intervals.of_mean(each.mean(0), resamples=1000, seed=0),
                "minus_uniform": claims.procedure(each - runs["uniform"])
                if name != "uniform"
                else None,
            }
            for name, each in runs.items()
        }
        for kind, runs in values.items()
    }
    for kind, runs in values.items():
        if kind != "none":
            result[kind]["uniform"]["headroom"] = claims.procedure(clean - runs["uniform"])
    told = [(kind, name) for kind, runs in values.items() for name in runs if name != "uniform"]
    p = [_p_value(values[kind][name] - values[kind]["uniform"]) for kind, name in told]
    for (kind, name), adjusted in zip(told, holm(p), strict=True):
        result[kind][name]["minus_uniform"]["holm"] = float(adjusted)
    return result


def _p_value(differences: np.ndarray) -> float:
    return claims.p_value(lambda level: claims.procedure(differences, level=level))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, default=Path("runs/list_weights"))
    parser.add_argument(
        "--kinds", nargs="*", choices=KINDS, default=[*KINDS], help="none and others"
    )
    parser.add_argument("--only", nargs="*", choices=(*WEIGHTINGS, CONTROL), default=[*WEIGHTINGS])
    parser.add_argument("--market", type=int, default=3, help="its seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    console = Console()
    values: dict[str, dict[str, np.ndarray]] = {}
    for kind in arguments.kinds:
        config = config_of(kind, arguments.market)
        folder = arguments.workdir / f"{kind}-{arguments.market}"
        values[kind] = values_of(config, folder, arguments.only, arguments.seeds, console)
        result = {
            **machine(),
            "commit": commit_of("HEAD"),
            "market": arguments.market,
            "rates": {kind: KINDS[kind] for kind in values},
            "kept": KEPT,
            "seeds": arguments.seeds,
            "schedule": dataclasses.asdict(config.train.schedule()),
            "kinds": summary(values),
        }
        write_json(arguments.out, result)
    for kind, runs in result["kinds"].items():
        shown = Table("run", "nDCG@10", "minus uniform", "p by Holm", title=kind)
        for name, one in runs.items():
            claim = one["minus_uniform"]
            shown.add_row(
                name,
                _text(one["ndcg@10"]),
                _text(claim) if claim else "",
                f"{claim['holm']:.3f}" if claim else "",
            )
        console.print(shown)


def _text(value: dict[str, float]) -> str:
    return f"{value['value']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"


if __name__ == "__main__":
    main()
