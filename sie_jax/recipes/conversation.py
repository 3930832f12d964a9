"""Conversation: what customers want, and the items that their chats end in."""

import os
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from sie_jax import processes
from sie_jax.config import ConversationConfig
from sie_jax.recipes.opening import carried_out
from sie_jax.report import terminal
from sie_jax.stages.chats import ask, chats, inputs_of
from sie_jax.stages.converse import MODEL, REPORT, converse
from sie_jax.stages.intents import intents
from sie_jax.workdir import Made, Workdir

STAGES = tuple(one.__name__ for one in (chats, ask, intents, converse))
"""The stages in their order."""


def run(
    config: ConversationConfig,
    workdir: str | os.PathLike[str],
    *,
    redo: Sequence[str] = (),
    console: Console | None = None,
) -> dict[str, Any]:
    """Makes every stage that is not yet made in `workdir`, and gives the content of metrics.json.

    workdir, redo: as of `recipes.relevance.run`.

    Raises UserError for what the user can fix, before anything is written where the config or the
    input is at fault.
    """
    return carried_out(
        config,
        workdir,
        known=STAGES,
        planned=stages,
        make=_stages,
        table=terminal.conversed,
        left={
            REPORT: "Report: {}",
            MODEL: "Model: {}, read by sie_jax.serving.conversing.Assistant",
        },
        redo=redo,
        console=console,
    )


def stages(config: ConversationConfig) -> tuple[str, ...]:
    """The stages in the order in which they are made."""
    optional = {
        "chats": bool(config.data.source),
        "ask": bool(config.data.source),
        "intents": bool(config.intents.path),
    }
    return tuple(name for name in STAGES if optional.get(name, True))


def _stages(config: ConversationConfig, workdir: Workdir) -> Made[dict[str, Any]]:
    """The stage converse, after all before it."""
    conversations = asking = told = None
    if config.data.source:
        paths = config.data.paths
        conversations = chats(
            workdir, data=config.data, inputs=processes.told(lambda: inputs_of(paths))
        )
        of_chain = {"chain": config.chain} if config.chain else {}
        asking = ask(
            workdir,
            conversations,
            chain=config.chain,
            inputs=processes.told(lambda: inputs_of(of_chain)),
        )
    if config.intents.path:
        told = intents(
            workdir,
            config=config.intents,
            inputs=processes.told(lambda: inputs_of(config.intents.paths)),
        )
    return converse(workdir, conversations, asking, told, chain=config.chain, config=config.intents)
