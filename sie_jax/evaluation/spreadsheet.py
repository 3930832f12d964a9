"""Text cells that a spreadsheet does not run as formulas."""

from typing import Any

# the full-width forms count as formulas in spreadsheets that are set to Japanese or Chinese
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def escape(value: Any) -> Any:
    """Puts an apostrophe in front of a text that would be a formula; leaves anything else."""
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return f"'{value}"
    return value


def unescape(text: str) -> str:
    """The text that `escape` was given."""
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULA_STARTS) else text
