"""Every field of the config as people read it: default, meaning, and what it may be."""

import ast
import copy
import dataclasses
import difflib
import inspect
import io
import textwrap
import tokenize
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from sie_jax.config import AnyConfig, Config
from sie_jax.errors import UserError
from sie_jax.sections import NoChoiceError

WIDTH = 98
_TEXTS = (str, tuple[str, ...])
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


class Field(NamedTuple):
    """One field: its dotted name, its default, what its comment says, and its kind.

    choices: the values that the check of its section takes; () where it takes no list.
    """

    name: str
    default: Any
    meaning: str
    kind: str
    choices: tuple[str, ...]

    @property
    def text(self) -> str:
        """The meaning, with the choices that it does not name itself."""
        if all(choice in self.meaning for choice in self.choices):
            return self.meaning
        return f"{self.meaning}; one of {', '.join(self.choices)}"

    @property
    def flag(self) -> str:
        """The flag that gives the field its default."""
        value = self.default
        if isinstance(value, tuple):
            value = ",".join(map(str, value))
        return f"--config.{self.name}={value}"


class Group(NamedTuple):
    """The fields of one section, without those of the sections in it; `about` says what it is."""

    name: str
    about: str
    fields: tuple[Field, ...]


def groups(section: Any = None, name: str = "") -> Iterator[Group]:
    """The section's own fields and then those of each section in it; of the config where None."""
    section = Config() if section is None else section
    texts, hints = comments(type(section)), typing.get_type_hints(type(section))
    own, inner = list[Field](), list[Group]()
    for field in dataclasses.fields(section):
        value, dotted = getattr(section, field.name), f"{name}.{field.name}".removeprefix(".")
        if dataclasses.is_dataclass(value):
            inner += groups(value, dotted)
        else:
            hint = hints[field.name]
            choices = _choices(section, field.name, dotted) if hint in _TEXTS else ()
            own.append(Field(dotted, value, texts[field.name], _kind(hint), choices))
    about = (type(section).__doc__ or "").partition("\n")[0]
    return iter([*([Group(name, about, tuple(own))] if own else []), *inner])


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


def listing(prefix: str = "", kind: type[AnyConfig] = Config) -> str:
    """The fields for a terminal of 100 columns: all, or those of the sections below a name.

    kind: the config whose fields they are.

    Raises UserError where no section and no field has that name.
    """
    found = [
        group._replace(fields=tuple(one for one in group.fields if _below(one.name, prefix)))
        for group in groups(kind())
    ]
    found = [group for group in found if group.fields]
    if not found:
        names = {one.name for group in groups(kind()) for one in group.fields}
        names |= {group.name for group in groups(kind()) if group.name}
        # the section's name alone makes two of its fields half alike
        near = difflib.get_close_matches(prefix, sorted(names), n=1, cutoff=0.8)
        sections = ", ".join(group.name for group in groups(kind()) if group.name)
        fix = f"did you mean {near[0]}?" if near else f"the sections are {sections}"
        raise UserError(f"--help={prefix}: there is no section or field {prefix!r}; {fix}")
    return "\n\n".join(map(_listed, found))


def _listed(group: Group) -> str:
    lines = [*textwrap.wrap(f"{group.name}: {group.about}" if group.name else group.about, WIDTH)]
    for field in group.fields:
        indent = " " * 6
        lines.append(f"  {field.flag}")
        lines += textwrap.wrap(
            field.text if field.choices else f"{field.text} ({field.kind})",
            WIDTH,
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def _below(name: str, prefix: str) -> bool:
    return not prefix or name == prefix or name.startswith(f"{prefix}.")


def _kind(hint: Any) -> str:
    if typing.get_origin(hint) is tuple:
        return f"several, each {_KINDS[typing.get_args(hint)[0]]}, separated by commas"
    return _KINDS[hint]


def _choices(section: Any, field: str, name: str) -> tuple[str, ...]:
    """The values that the section's check names where a field holds none of them."""
    tried, none = copy.deepcopy(section), "\0"
    setattr(tried, field, none if isinstance(getattr(section, field), str) else (none,))
    try:
        getattr(tried, "check", tuple)()  # ColumnsConfig has nothing to check
    except NoChoiceError as error:
        return error.choices if error.name == name else ()
    except UserError:  # about something else than a list
        pass
    return ()
