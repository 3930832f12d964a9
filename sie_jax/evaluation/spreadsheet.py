"""Text cells that a spreadsheet does not run as formulas."""

from typing import Any

# the full-width forms count as formulas in spreadsheets that are set to Japanese or Chinese
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def escape(value: Any) -> Any:
    """Puts an apostrophe in front of a text that would be a formula; leaves anything else.

    Likewise in front of a text that looks escaped, so that `unescape` gives back every text.
    """
    return f"'{value}" if isinstance(value, str) and _is_formula(value) else value


def unescape(text: str) -> str:
    """The text that `escape` was given."""
    return text[1:] if text.startswith("'") and _is_formula(text) else text


def _is_formula(text: str) -> bool:
    return text.lstrip("'").startswith(FORMULA_STARTS)
