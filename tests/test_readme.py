"""What the README shows is what runs."""

import re
from collections import Counter
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh.md").read_text(encoding="utf-8")


def test_the_library_example_runs_and_its_update_is_the_weighted_gradient(capsys) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict = {}
    exec(code, names)
    assert "w" in capsys.readouterr().out
    weights, gradients = names["weights"], names["grads"].materialize()
    for name, update in names["update"].items():
        expected = jnp.einsum("b,b...->...", weights, gradients[name])
        # float32 sums of 32 terms in another order
        np.testing.assert_allclose(update, expected, rtol=1e-4, atol=1e-6)


def _code_blocks(text: str) -> Counter:
    """Fenced blocks without their comments, and indented lines."""
    blocks = re.findall(r"^```.*?^```$|^ {4}[^\n]*", text, flags=re.DOTALL | re.MULTILINE)
    return Counter(re.sub(r" *#[^\n]*", "", block) for block in blocks)


def _code_spans(text: str) -> Counter:
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return Counter(" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose))


def _numbers(text: str) -> Counter:
    return Counter(re.findall(r"[−+]?\d+(?:[.,]\d+)*(?:e-\d+)?", text))


def _table_rows(text: str) -> list[Counter]:
    return [_numbers(line) for line in text.splitlines() if line.startswith("|")]


def _link_targets(text: str) -> Counter:
    targets = Counter(re.findall(r"\]\(([^)]+)\)", text))
    return targets - Counter(["README.md", "README.zh.md"])


def _heading_levels(text: str) -> list[str]:
    return re.findall(r"^#+(?= )", text, flags=re.MULTILINE)


@pytest.mark.parametrize(
    "parts", [_code_blocks, _code_spans, _numbers, _table_rows, _link_targets, _heading_levels]
)
def test_the_chinese_readme_shows_the_same(parts) -> None:
    english = parts(README)
    assert english
    assert parts(CHINESE) == english
