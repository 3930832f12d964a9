import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from sie_jax.training import logs
from sie_jax.training.logs import Clock, MetricsLog, bar


def test_lines_come_back(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    assert log.read() == []
    log.rewind("uniform-0", 0)  # nothing to rewind, and no file is made
    assert not (tmp_path / "metrics.jsonl").exists()
    log.write("uniform-0", 1, loss=0.5)
    log.write("uniform-0", 2, loss=0.25, gradient_norm=1.0)
    assert log.read() == [
        {"run": "uniform-0", "step": 1, "loss": 0.5},
        {"run": "uniform-0", "step": 2, "loss": 0.25, "gradient_norm": 1.0},
    ]


def test_rewind_drops_what_a_resume_does_again(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for run in ("uniform-0", "weighted-0"):
        for step in (10, 20, 30):
            log.write(run, step, loss=0.0)
    log.rewind("weighted-0", 20)
    assert [(line["run"], line["step"]) for line in log.read()] == [
        *(("uniform-0", step) for step in (10, 20, 30)),
        ("weighted-0", 10),
        ("weighted-0", 20),
    ]


def test_rewind_drops_a_torn_last_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.write("uniform-0", 10, loss=0.5)
    whole = path.read_text()
    line = json.dumps({"run": "uniform-0", "step": 20, "loss": 0.25})
    for cut in range(1, len(line)):
        path.write_text(whole + line[:cut])
        log.rewind("uniform-0", 20)
        assert path.read_text() == whole
    path.write_text(whole + line)  # only the line's end is missing
    log.rewind("uniform-0", 20)
    log.write("uniform-0", 30, loss=0.1)
    assert [one["step"] for one in log.read()] == [10, 20, 30]


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A clock that is set by hand."""

    class Now:
        time = 100.0

    monkeypatch.setattr(logs.time, "perf_counter", lambda: Now.time)
    return Now


def test_a_clock_adds_up_over_processes(tmp_path: Path, now: Any) -> None:
    path = tmp_path / "clock.json"
    first = Clock(path)
    now.time += 2.5
    assert first.seconds == 2.5
    first.tick()
    now.time += 0.75
    first.tick()  # within a second of the last: not written, and lost when the process dies
    second = Clock(path)
    assert second.recorded == 2.5
    now.time += 4.0
    assert second.seconds == 6.5
    assert second.recorded == 2.5
    second.tick(force=True)
    assert Clock(path).recorded == 6.5
    second.tick(force=True)  # a second tick counts nothing twice
    assert Clock(path).recorded == 6.5


def test_a_clock_that_was_never_started(tmp_path: Path) -> None:
    assert Clock(tmp_path / "clock.json").recorded == 0.0


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
    assert told.endswith("loss 0.500\n")


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
