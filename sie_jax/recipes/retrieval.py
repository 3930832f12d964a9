"""Retrieval: the items of a whole catalogue for a query, by words, by vectors, and by both."""

import os
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from sie_jax import processes
from sie_jax.config import Config, RetrievalConfig
from sie_jax.recipes import relevance
from sie_jax.recipes.opening import close, opened
from sie_jax.report import terminal
from sie_jax.retrieval.index import library
from sie_jax.stages.catalogue import Named, encode
from sie_jax.stages.prepare import Ahead, inputs_of, prepare
from sie_jax.stages.search import REPORT, Encoded, search
from sie_jax.stages.train import train
from sie_jax.training.run import Run
from sie_jax.workdir import Made, Workdir

STAGES = tuple(one.__name__ for one in (prepare, train, encode, search))
"""The stages in their order."""


def run(
    config: RetrievalConfig,
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
    library()  # or it is missed only once the towers have been trained
    with opened(
        config,
        workdir,
        known=STAGES,
        planned=lambda: stages(config),
        redo=redo,
        console=console,
    ) as place:
        metrics = _stages(config, place).value
        close(place)
        place.console.print(terminal.retrieved(metrics))
        place.console.print(terminal.verdict(metrics))
        place.say(f"Report: {os.path.join(workdir, REPORT)}")
    return metrics


def stages(config: RetrievalConfig) -> tuple[str, ...]:
    """The stages in the order in which they are made."""
    optional = {
        "train/uniform-0": config.tuned,
        "encode/tuned": config.tuned,
        "encode/checkpoint": bool(config.model.pretrained),
    }
    named = ("prepare", "train/uniform-0", "encode/tuned", "encode/checkpoint", "search")
    return tuple(name for name in named if optional.get(name, True))


def _stages(config: RetrievalConfig, workdir: Workdir) -> Made[dict[str, Any]]:
    """The stage search, after all before it."""
    like = Config(data=config.data, model=config.model, train=config.train)
    data, pretrained = config.data, config.model.pretrained
    pairs = prepare(
        workdir,
        data=data,
        pretrained=pretrained,
        inputs=processes.told(lambda: inputs_of(data, pretrained)),
        keep_catalogue=True,
        apart=True,
        ahead=Ahead(config.model, config.train, like.importance, 0, None),
    )
    common: dict[str, Any] = {
        "checkpoint": config.model.folder() if pretrained else "",
        "item_text": data.item_text,
    }
    trained = tuned = checkpoint = None
    if config.tuned:
        start = relevance.beginning(like, pairs)
        one = Run("uniform-0", start.seed, start.train)
        trained = train(workdir, one, start, None, data=data, importance=None)
        tuned = encode(workdir, Named("tuned"), pairs, trained, **common)
    if pretrained:
        checkpoint = encode(workdir, Named("checkpoint"), pairs, None, **common)
    return search(
        workdir,
        pairs,
        Encoded(trained, tuned, checkpoint),
        index=config.index,
        depths=config.depths,
        **common,
    )
