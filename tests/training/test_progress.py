import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from sie_jax.training import progress
from sie_jax.training.progress import bar, duration


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A clock that is set by hand."""

    class Now:
        time = 100.0

    monkeypatch.setattr(progress.time, "perf_counter", lambda: Now.time)
    return Now


def batch(real: int, tokens: int) -> dict[str, np.ndarray]:
    """Four rows of eight slots, the first `real` of them with so many tokens."""
    mask = np.arange(4) < real
    attention_mask = np.zeros((4, 8), bool)
    attention_mask[:, 0] = True
    attention_mask[mask, :tokens] = True
    return {"mask": mask, "attention_mask": attention_mask}


def test_a_bar_says_speed_and_padding_every_ten_seconds(
    now: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with bar("uniform-0", 9, Console(file=io.StringIO())) as progress:
        progress.skip(4)
        now.time += 5
        progress.advance(batch(4, 6))
        assert capsys.readouterr().err == ""
        now.time += 5
        progress.advance(batch(2, 4), "loss 0.500")
    told = capsys.readouterr().err
    assert told.startswith("uniform-0  6/9")
    assert "1 examples/s" in told  # 6 rows in 10 s
    assert "padding  50%" in told  # 4·6 + 2·4 tokens in 2·4·8 slots
    assert told.endswith("loss 0.500  15 s left\n")  # 3 batches at 5 s, the first left out


def test_a_bar_is_taken_down_whatever_happens() -> None:
    console = Console(file=io.StringIO(), force_terminal=True)

    def fail() -> None:
        with bar("uniform-0", 2, console) as progress:
            progress.advance(batch(4, 8))
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    with bar("uniform-0", 2, console):  # rich allows one live display at a time
        pass


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.2, "0 s"), (59.7, "1 min 0 s"), (125, "2 min 5 s"), (3725, "1 h 2 min")],
)
def test_a_duration_has_two_units(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
