import pytest

from sie_jax.evaluation import spreadsheet


@pytest.mark.parametrize("text", ["=A", "'=A", "''=A", "'A", "A", "", "'", "'-", "＝1", "'＝1"])
def test_unescape_gives_back_every_text(text: str) -> None:
    assert spreadsheet.unescape(spreadsheet.escape(text)) == text
    assert not spreadsheet.escape(text).startswith(spreadsheet.FORMULA_STARTS)
