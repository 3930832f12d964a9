"""How the page writes numbers: with true minus signs, and with a dash for what is undefined."""

import math
from collections.abc import Mapping

_DASH = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"


def value(number: float | None) -> str:
    return _formatted(number, ".4f")


def signed(number: float | None) -> str:
    return _formatted(number, "+.4f")


def whole(number: float | None) -> str:
    return _formatted(number, ",.0f")


def seconds(number: float | None) -> str:
    return _formatted(number, ",.1f")


def bounds(entry: Mapping[str, float | None], signed: bool = False) -> str:
    """`{"low", "high"}` as a range; each bound has its sign if `signed`."""
    if entry["low"] is None or entry["high"] is None:
        return "no interval"
    form = "+.4f" if signed else ".4f"
    return f"{_formatted(entry['low'], form)} to {_formatted(entry['high'], form)}"


def _formatted(number: float | None, form: str) -> str:
    if number is None or math.isnan(number):
        return _DASH
    return format(number, form).replace("-", _MINUS)
