"""The chain: find in a whole catalogue, rank, re-rank and diversify; each step is measured."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console

from sie_jax import processes
from sie_jax.config import ChainConfig, Config
from sie_jax.models.trees import library as tree_library
from sie_jax.recipes import relevance
from sie_jax.recipes.opening import carried_out
from sie_jax.report import terminal
from sie_jax.retrieval.index import library
from sie_jax.stages.assemble import MODEL, assemble
from sie_jax.stages.catalogue import Named, encode
from sie_jax.stages.measure import REPORT, measure
from sie_jax.stages.prepare import Ahead, inputs_of, prepare
from sie_jax.stages.search import CHECKPOINT, TUNED, Encoded
from sie_jax.stages.together import together
from sie_jax.stages.train import train
from sie_jax.stages.translation import translation
from sie_jax.training.run import Run
from sie_jax.workdir import Made, Workdir

CROSS = "cross"
STAGES = tuple(
    one.__name__ for one in (prepare, translation, train, encode, together, assemble, measure)
)
"""The stages in their order."""


def run(
    config: ChainConfig,
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
    tree_library()
    return carried_out(
        config,
        workdir,
        known=STAGES,
        planned=stages,
        make=_stages,
        table=terminal.retrieved,
        left={
            REPORT: "Report: {}",
            MODEL: "Model: {}, read by sie_jax.serving.finding.Chain",
        },
        redo=redo,
        console=console,
    )


def stages(config: ChainConfig) -> tuple[str, ...]:
    """The stages in the order in which they are made."""
    optional = {
        "encode/checkpoint": bool(config.model.pretrained),
        "together": bool(config.chain.kept),
        f"train/{CROSS}-0": bool(config.chain.kept),
    }
    named = (
        *("prepare", "translation", "train/uniform-0", "encode/tuned", "encode/checkpoint"),
        *("together", f"train/{CROSS}-0", "assemble", "measure"),
    )
    return tuple(name for name in named if optional.get(name, True))


def _stages(config: ChainConfig, workdir: Workdir) -> Made[dict[str, Any]]:
    """The stage measure, after all before it."""
    data, pretrained = config.data, config.model.pretrained
    like = Config(data=data, model=config.model, train=config.train)
    pairs = prepare(
        workdir,
        data=data,
        pretrained=pretrained,
        inputs=processes.told(lambda: inputs_of(data, pretrained)),
        keep_catalogue=True,
        apart=True,
        ahead=Ahead(config.model, config.train, like.importance, 0, None),
    )
    words = translation(workdir, pairs)
    common: dict[str, Any] = {
        "checkpoint": config.model.folder() if pretrained else "",
        "item_text": data.item_text,
    }
    start = relevance.beginning(like, pairs)
    one = Run("uniform-0", start.seed, start.train)
    trained = {TUNED: train(workdir, one, start, None, data=data, importance=None)}
    vectors = encode(workdir, Named(TUNED), pairs, trained[TUNED], **common)
    encoded = {TUNED: Encoded(vectors, trained[TUNED])}
    if pretrained:
        vectors = encode(workdir, Named(CHECKPOINT), pairs, None, **common)
        encoded[CHECKPOINT] = Encoded(vectors, None)
    if config.chain.kept:
        # of each text the towers read so many tokens, and the cross-encoder reads two
        whole = replace(data, max_length=2 * data.max_length)
        both = together(workdir, pairs, data=whole)
        of_cross = Config(data=whole, model=config.model, train=config.cross)
        start = relevance.beginning(of_cross, both)
        one = Run(f"{CROSS}-0", start.seed, start.train)
        trained[CROSS] = train(workdir, one, start, None, data=whole, importance=None)
    assembled = assemble(
        workdir,
        pairs,
        encoded,
        words,
        trained.get(CROSS),
        steps=config.chain,
        index=config.index,
        seed=config.train.seed,
        **common,
    )
    return measure(workdir, pairs, assembled, trained, depths=config.chain.depths)
