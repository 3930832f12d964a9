"""Retrieval: the items of a whole catalogue for a query, by words, by vectors, and by both."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console

from sie_jax import processes
from sie_jax.config import Config, RetrievalConfig
from sie_jax.importance.policies import Believed
from sie_jax.importance.section import ImportanceConfig
from sie_jax.recipes import relevance
from sie_jax.recipes.opening import carried_out
from sie_jax.report import terminal
from sie_jax.retrieval.index import library
from sie_jax.retrieval.negatives import LONGER, WEIGHTED, NegativesConfig
from sie_jax.stages.catalogue import Named, encode
from sie_jax.stages.mine import DOUBT, doubts, mine
from sie_jax.stages.pair_runs import Start
from sie_jax.stages.prepare import Ahead, inputs_of, prepare
from sie_jax.stages.search import CHECKPOINT, REPORT, TUNED, Encoded, search
from sie_jax.stages.train import read as read_run
from sie_jax.stages.train import train
from sie_jax.training.run import Run, Weighting
from sie_jax.workdir import Made, Workdir

STAGES = tuple(one.__name__ for one in (prepare, train, mine, encode, search))
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
    return carried_out(
        config,
        workdir,
        known=STAGES,
        planned=stages,
        make=_stages,
        table=terminal.retrieved,
        left={REPORT: "Report: {}"},
        redo=redo,
        console=console,
    )


def stages(config: RetrievalConfig) -> tuple[str, ...]:
    """The stages in the order in which they are made."""
    named = ["prepare"]
    if config.tuned:
        named += ["train/uniform-0", "encode/tuned"]
        for kind in _kinds(config.negatives):
            for number in range(config.negatives.rounds):
                name = _round(kind, number)
                named += [f"mine/{name}"] * (kind != LONGER) + [f"train/{name}-0"]
                named.append(f"encode/{name}")
    named += ["encode/checkpoint"] * bool(config.model.pretrained)
    return (*named, "search")


def _kinds(negatives: NegativesConfig) -> tuple[str, ...]:
    return (LONGER, *negatives.kinds) if negatives.kinds else ()


def _round(kind: str, number: int) -> str:
    return f"{kind}_{number + 1}"


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
    encoded: dict[str, Encoded] = {}
    if pretrained:
        vectors = encode(workdir, Named(CHECKPOINT), pairs, None, **common)
        encoded[CHECKPOINT] = Encoded(vectors, None)
    if config.tuned:
        start = relevance.beginning(like, pairs)
        one = Run("uniform-0", start.seed, start.train)
        trained = train(workdir, one, start, None, data=data, importance=None)
        encoded[TUNED] = Encoded(encode(workdir, Named(TUNED), pairs, trained, **common), trained)
        for kind in _kinds(config.negatives):
            encoded[kind] = _further(config, workdir, start, encoded[TUNED], kind, common)
    return search(workdir, pairs, encoded, index=config.index, depths=config.depths, **common)


def _further(
    config: RetrievalConfig,
    workdir: Workdir,
    start: Start,
    tuned: Encoded,
    kind: str,
    common: Mapping[str, Any],
) -> Encoded:
    """The towers trained further, in rounds, by what those of the round before had found."""
    pairs, negatives, last = start.prepared, config.negatives, tuned
    schedule = replace(start.train, epochs=negatives.epochs)
    importance = ImportanceConfig(score=DOUBT, policy=Believed.name)
    for number in range(negatives.rounds):
        name, scores, weighting = _round(kind, number), None, Weighting()
        assert last.trained is not None
        before = last.trained.read_as(lambda made: read_run(made).model)
        seed = start.seed + 1 + number  # further epochs take other batches
        begun = replace(start, pretrained=before, train=schedule)
        if kind != LONGER:
            mined = mine(
                workdir,
                Named(name),
                pairs,
                last.vectors,
                last.trained,
                kind=kind,
                config=replace(negatives, kinds=()),
                data=config.data,
                seed=seed,
            )
            begun = replace(begun, prepared=mined)
            if kind == WEIGHTED:
                scores = mined.read_as(doubts)
                weighting = Weighting("weights", DOUBT, Believed.name)
        trained = train(
            workdir,
            Run(f"{name}-0", seed, schedule, weighting),
            replace(begun, seed=seed),
            scores,
            data=config.data,
            importance=importance if scores is not None else None,
        )
        last = Encoded(encode(workdir, Named(name), pairs, trained, **common), trained)
    return last
