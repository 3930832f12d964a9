"""What all sections of a config share: the check of their types, and checks of single values.

A section is a dataclass beside what it configures. It checks itself (`check`), and makes the thing
that it describes. A field whose metadata is `TELLS` says only what is shown or kept on the way: it
changes no result, so no stage of a run depends on it.
"""

import dataclasses
import math
import typing
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from sie_jax.errors import UserError

TELLS: Mapping[str, bool] = {"tells": True}
MOST = 2**63 - 1  # of an integer: what is counted with it stays a number


class NoChoiceError(UserError):
    """A field's value is none of those that it may have."""

    def __init__(self, name: str, value: str, choices: Collection[str]) -> None:
        super().__init__(f"{name} is {value!r}: choose one of {', '.join(choices)}")
        self.name, self.choices = name, tuple(choices)


class Section(Protocol):
    """Some fields of a config."""

    def check(self) -> None:
        """Raises UserError for the first value that cannot work, naming the field and the fix."""


def plain(value: Any) -> Any:
    """A section as JSON values without the fields that only tell; tuples become lists.

    Takes JSON values too, and tuples of both. Raises TypeError for anything else.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if not field.metadata.get("tells")
        }
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} is neither a section nor a JSON value")


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested dictionaries by their dotted names: `train.epochs`."""
    values: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = value
    return values


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """One text per field that differs between two sections as JSON: `train.epochs 3, not 2`."""
    mine, other = flat(ours), flat(theirs)
    return [
        f"{name} {other.get(name)!r}, not {mine.get(name)!r}"
        for name in sorted(mine.keys() | other.keys())
        if mine.get(name) != other.get(name)
    ]


def check_types(section: Any, prefix: str = "") -> None:
    """Raises UserError where a field holds a value of another type than it was declared with.

    An integer in a float's place becomes a float, a list in a tuple's place a tuple. And where an
    integer is beyond 64 bits.
    """
    for field in dataclasses.fields(section):
        value, name = getattr(section, field.name), f"{prefix}{field.name}"
        kind: Any = field.type
        for one in value if isinstance(value, tuple | list) else (value,):
            if type(one) is int and not -MOST <= one <= MOST:
                raise UserError(f"{name} is beyond {MOST:,}: give a smaller number")
        if dataclasses.is_dataclass(kind):
            if not isinstance(value, kind):  # type: ignore[arg-type]  # a class, as checked
                raise UserError(f"{name} must be a {kind.__name__}")  # type: ignore[union-attr]
            check_types(value, f"{name}.")
        elif typing.get_origin(kind) is tuple:
            inner = typing.get_args(kind)[0]
            if not isinstance(value, tuple | list):
                raise UserError(
                    f"{name} is {value!r}: give a tuple of values of type {inner.__name__}"
                )
            for one in value:
                if type(one) is not inner and not (inner is float and type(one) is int):
                    raise UserError(f"{name} holds {one!r}: give values of type {inner.__name__}")
            setattr(section, field.name, tuple(inner(one) for one in value))
        elif kind is float and type(value) is int:
            setattr(section, field.name, float(value))
        elif type(value) is not kind:
            raise UserError(f"{name} is {value!r}: give a value of type {kind.__name__}")


def one_of(name: str, value: str, choices: Collection[str]) -> None:
    """Raises NoChoiceError where a value is none of the choices."""
    if value not in choices:
        raise NoChoiceError(name, value, choices)


def at_least(name: str, value: float, low: float) -> None:
    """Raises UserError for a value that is smaller, NaN or infinite."""
    if not low <= value < math.inf:
        raise UserError(f"{name} is {value}: give a number of at least {low}")


def positive(name: str, value: float) -> None:
    """Raises UserError for a value that is 0, negative, NaN or infinite."""
    if not (0 < value < math.inf):
        raise UserError(f"{name} is {value}: give a number greater than 0")


def between(name: str, value: float, low: float, high: float) -> None:
    """Raises UserError for a value outside [low, high], and for NaN."""
    if not low <= value <= high:
        raise UserError(f"{name} is {value}: give a number from {low:g} to {high:g}")
