"""Recommendation: the next items of a user's history, with and without weights."""

import os
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from sie_jax import outputs, processes
from sie_jax.config import RecommendationConfig, as_json
from sie_jax.devices import mesh as meshes
from sie_jax.errors import UserError
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
from sie_jax.workdir.claim import claimed
from sie_jax.workdir.job import FOLDERS, LEFT

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
    config.check()
    for name in redo:
        if name.partition("/")[0] not in STAGES:
            raise UserError(f"--redo={name}: choose of the stages {', '.join(STAGES)}")
    mesh = config.mesh.make()
    meshes.check_batch(mesh, config.train.batch_size)
    reads = [path for path in (*config.data.paths.values(), config.model.pretrained) if path]
    writes = [os.path.join(workdir, name) for name in (*FOLDERS, *LEFT)]
    outputs.apart(writes, reads, fix="give another --workdir")
    console = (console or Console()) if processes.first() else Console(quiet=True)

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False, highlight=False)

    with claimed(workdir, say) as folder:
        place = Workdir(
            folder,
            mesh,
            console,
            as_json(config),
            config.train,
            config.tracking,
            frozenset(redo),
            stages(config),
            defaults=as_json(RecommendationConfig()),
        )
        place.say_changes()
        metrics = _stages(config, place).value
        processes.alone(place.write_config)
        processes.alone(place.draw_log)
        place.console.print(terminal.recommenders(metrics))
        place.console.print(terminal.verdict(metrics))
        place.say(f"Report: {os.path.join(workdir, REPORT)}")
    return metrics


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
