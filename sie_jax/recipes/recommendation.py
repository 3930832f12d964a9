"""Recommendation: the next items of a user's history, with and without weights."""

import os
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from sie_jax import processes
from sie_jax.config import RecommendationConfig
from sie_jax.recipes.opening import carried_out
from sie_jax.report import terminal
from sie_jax.stages.histories import describe_items, histories, inputs_of
from sie_jax.stages.history_blend import blend
from sie_jax.stages.history_evaluate import REPORT, HistoryResults, evaluate
from sie_jax.stages.history_explain import explain
from sie_jax.stages.history_runs import HistoryStart, weighting
from sie_jax.stages.history_train import train
from sie_jax.stages.recommenders import recommenders
from sie_jax.training.run import Run
from sie_jax.workdir import Made, Workdir

STAGES = tuple(
    one.__name__
    for one in (histories, describe_items, recommenders, train, blend, explain, evaluate)
)
"""The stages in their order."""


def run(
    config: RecommendationConfig,
    workdir: str | os.PathLike[str],
    *,
    redo: Sequence[str] = (),
    console: Console | None = None,
) -> dict[str, Any]:
    """Makes every stage that is not yet made in `workdir`, and gives the content of metrics.json.

    workdir, redo: as of `recipes.relevance.run`.

    Raises UserError for what the user can fix, before anything is written where the config or the
    input is at fault, and NumericalError where a loss is no longer finite.
    """
    return carried_out(
        config,
        workdir,
        known=STAGES,
        planned=stages,
        make=_stages,
        table=terminal.recommenders,
        left={REPORT: "Report: {}"},
        redo=redo,
        console=console,
    )


def stages(config: RecommendationConfig) -> tuple[str, ...]:
    """The stages in the order in which they are made, each training run by its own name."""
    trained = [
        f"train/{name}-{seed}" for seed in range(config.train.seeds) for name in _runs(config)
    ]
    optional = {
        "describe_items": bool(config.model.text),
        "explain": config.evaluation.explained_users > 0,
    }
    named = (
        "histories",
        "describe_items",
        "recommenders",
        *trained,
        "blend",
        "explain",
        "evaluate",
    )
    return tuple(name for name in named if optional.get(name, True))


def _runs(config: RecommendationConfig) -> tuple[str, ...]:
    return ("uniform", *config.weightings)


def _stages(config: RecommendationConfig, workdir: Workdir) -> Made[dict[str, Any]]:
    """The stage evaluate, after all before it."""
    data, model = config.data, config.model
    read = histories(workdir, data=data, inputs=processes.told(lambda: inputs_of(data)))
    vectors = None
    if model.text:
        vectors = describe_items(
            workdir, read, text=model.text, pretrained=model.folder(), width=model.hidden_size
        )
    fitted = recommenders(workdir, read, repeats=data.repeats, seed=config.train.seed)
    start = HistoryStart(
        read,
        vectors,
        model,
        config.train.schedule(),
        config.train.negatives,
        config.train.buckets,
        config.train.seed,
        data.repeats,
    )
    depths, trained = config.evaluation.depths, []
    for repeat in range(config.train.seeds):
        for name in _runs(config):
            one = Run(f"{name}-{repeat}", start.seed + repeat, start.train, weighting(name))
            trained.append(train(workdir, one, start, depth=max(depths)))
    both = blend(workdir, start, trained[0], fitted, depth=max(depths))
    explained = None
    if asked := config.evaluation.explained_users:
        explained = explain(workdir, start, trained[0], users=asked, seed=start.seed)
    results = HistoryResults(fitted, tuple(trained), both, explained)
    return evaluate(workdir, results, start, depths=depths)
