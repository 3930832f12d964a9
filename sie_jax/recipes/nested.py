"""Nested: a recipe once for each fold of the queries, so that every query is tested once."""

import dataclasses
from collections.abc import Callable
from typing import Any

from sie_jax import processes
from sie_jax.config import Config, as_json
from sie_jax.recipes import plan
from sie_jax.stages.pool import pool
from sie_jax.workdir import Made, Workdir
from sie_jax.workdir.claim import claimed

FOLDS = "folds"


def tested(
    config: Config,
    workdir: Workdir,
    *,
    recipe: Callable[[Config, Workdir], Made[dict[str, Any]]],
) -> Made[dict[str, Any]]:
    """The stage pool, after the recipe in a workdir of its own for each fold: folds/0, folds/1, ...

    Everything that the recipe fits, tunes or chooses is made anew without the queries that the fold
    tests. Each workdir is one like any other: what is done in it is not done again.

    config: with `evaluation.folds`. recipe: gives the stage evaluate.

    Raises UserError for what the user can fix.
    """
    folds, made = config.evaluation.folds, []
    for fold in range(folds):
        one = _of_fold(config, fold)
        with claimed(workdir.folder / FOLDS / str(fold), workdir.say) as folder:
            workdir.say(f"Fold {fold + 1} of {folds}: {folder}")
            place = dataclasses.replace(
                workdir, folder=folder, config=as_json(one), stages=plan.stages(one)
            )
            made.append(recipe(one, place))
            processes.alone(place.write_config)
            processes.alone(place.draw_log)
    return pool(
        workdir,
        tuple(made),
        evaluation=config.evaluation,
        train=config.train.schedule(),
        pretrained=bool(config.model.pretrained or config.pretrain.steps),
    )


def _of_fold(config: Config, fold: int) -> Config:
    """The config of one fold's workdir; its page explains and changes no queries."""
    folds = config.evaluation.folds
    return dataclasses.replace(
        config,
        name=f"{config.name}, fold {fold + 1} of {folds}",
        data=dataclasses.replace(config.data, test_folds=folds, test_fold=fold),
        evaluation=dataclasses.replace(
            config.evaluation, folds=0, explained_queries=0, changed_queries=0
        ),
    )
