"""The tables of docs/configuration.md: every field of the config, its default, its comment."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from sie_jax.commands.fields import groups
from sie_jax.config import (
    AnyConfig,
    ChainConfig,
    Config,
    ConversationConfig,
    RecommendationConfig,
    RetrievalConfig,
)


def default(value: Any) -> str:
    """A default as it is written on the command line."""
    if isinstance(value, tuple):
        value = ",".join(str(one) for one in value)
    return f"`{value}`" if value != "" else "empty"


def table(name: str, kind: type[AnyConfig] = Config) -> str:
    """The fields of one section of a config; of those that it has beside its sections where "".

    Raises ValueError for a field without a comment: give it one, behind it or in the line above.
    """
    lines = ["| flag | default | meaning |", "| --- | --- | --- |"]
    own = [group for group in groups(kind()) if not group.name]
    for group in groups(getattr(kind(), name), name) if name else own:
        for field in group.fields:
            if not field.meaning:
                raise ValueError(f"{field.name} has no comment beside it that says what it means")
            lines.append(f"| `--config.{field.name}` | {default(field.default)} | {field.text} |")
    return "\n".join(lines)


SECTIONS = tuple(
    field.name for field in dataclasses.fields(Config) if dataclasses.is_dataclass(field.type)
)
FURTHER: dict[str, tuple[type[AnyConfig], tuple[str, ...]]] = {
    "recommendation": (RecommendationConfig, ("", "data", "model", "train", "evaluation")),
    "retrieval": (RetrievalConfig, ("", "index", "negatives")),
    "chain": (ChainConfig, ("", "chain")),
    "conversation": (ConversationConfig, ("", "data", "intents")),
}
"""The sections of the other recipes that pages list; "" is what a config has beside sections."""
PARTS: dict[str, Callable[[], str]] = {
    **{f"fields of {name}": functools.partial(table, name) for name in SECTIONS},
    **{
        f"fields of {recipe}, {name or 'its own'}": functools.partial(table, name, kind)
        for recipe, (kind, names) in FURTHER.items()
        for name in names
    },
}
