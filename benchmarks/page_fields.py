"""The tables of docs/configuration.md: every field of the config, its default, its comment."""

import ast
import dataclasses
import functools
import inspect
import io
import textwrap
import tokenize
from collections.abc import Callable, Iterator
from typing import Any

from sie_jax.config import Config


def comments(section: type) -> dict[str, str]:
    """The comment of each field: behind it, or else in the lines directly above it."""
    source = textwrap.dedent(inspect.getsource(section))
    found, alone = dict[int, str](), set[int]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line, column = token.start
            found[line] = token.string.lstrip("# ")
            if not token.line[:column].strip():
                alone.add(line)
    (body,) = ast.parse(source).body
    assert isinstance(body, ast.ClassDef)
    texts = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            last = node.end_lineno or node.lineno
            above, line = [], node.lineno - 1
            while line in alone:
                above.append(found[line])
                line -= 1
            behind = [found[at] for at in range(node.lineno, last + 1) if at in found]
            texts[node.target.id] = " ".join(behind or reversed(above))
    return texts


def fields(section: Any, prefix: str) -> Iterator[tuple[str, Any, str]]:
    """(dotted name, default, comment) of a section's fields and of those of the sections in it."""
    texts = comments(type(section))
    for field in dataclasses.fields(section):
        value, name = getattr(section, field.name), f"{prefix}.{field.name}"
        if dataclasses.is_dataclass(value):
            yield from fields(value, name)
        else:
            yield name, value, texts[field.name]


def default(value: Any) -> str:
    """A default as it is written on the command line."""
    if isinstance(value, tuple):
        value = ",".join(str(one) for one in value)
    return f"`{value}`" if value != "" else "empty"


def table(name: str) -> str:
    """The fields of one section of the config.

    Raises ValueError for a field without a comment: give it one, behind it or in the line above.
    """
    lines = ["| flag | default | meaning |", "| --- | --- | --- |"]
    for field, value, text in fields(getattr(Config(), name), name):
        if not text:
            raise ValueError(f"{field} has no comment beside it that says what it means")
        lines.append(f"| `--config.{field}` | {default(value)} | {text} |")
    return "\n".join(lines)


SECTIONS = tuple(
    field.name for field in dataclasses.fields(Config) if dataclasses.is_dataclass(field.type)
)
PARTS: dict[str, Callable[[], str]] = {
    f"fields of {name}": functools.partial(table, name) for name in SECTIONS
}
