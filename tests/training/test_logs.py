import json
from pathlib import Path

import pytest

from sie_jax.training import logs
from sie_jax.training.logs import MetricsLog, draw_together


def test_lines_come_back(tmp_path: Path) -> None:
    path = tmp_path / "uniform-0" / "metrics.jsonl"
    log = MetricsLog(path)
    assert logs.read(path) == []
    log.rewind("uniform-0", 0)  # nothing to rewind, and no file is made
    assert not path.exists()
    log.write("uniform-0", 1, loss=0.5)
    log.write("uniform-0", 2, loss=0.25, gradient_norm=1.0)
    assert logs.read(path) == [
        {"run": "uniform-0", "step": 1, "loss": 0.5},
        {"run": "uniform-0", "step": 2, "loss": 0.25, "gradient_norm": 1.0},
    ]


def test_rewind_drops_what_a_resumed_run_writes_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for step in (10, 20, 30):
        log.write("weighted-0", step, loss=0.0)
        log.write_speed("weighted-0", step, step_seconds=1.0)
    log.rewind("weighted-0", 20)
    for name in ("metrics.jsonl", "speed.jsonl"):
        assert [line["step"] for line in logs.read(tmp_path / name)] == [10, 20]


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
    assert [one["step"] for one in logs.read(path)] == [10, 20, 30]


@pytest.mark.parametrize("garbage", [b"\xff\x00", b"{", b"[1, 2]", b"null", b'{"step": 1}'])
def test_logs_are_drawn_together_run_after_run_without_what_is_damaged(
    tmp_path: Path, garbage: bytes
) -> None:
    runs = [tmp_path / "runs" / name for name in ("uniform-0", "weighted-0", "no_log")]
    for run in runs[:2]:
        log = MetricsLog(run / "metrics.jsonl")
        log.write(run.name, 1, loss=0.5)
        log.write_speed(run.name, 1, step_seconds=2.0)
    with (runs[0] / "metrics.jsonl").open("ab") as file:
        file.write(garbage + b"\n")
    said: list[str] = []
    for _ in range(2):  # drawn anew each time
        draw_together(runs, tmp_path, said.append)
    found = logs.read(tmp_path / "metrics.jsonl")
    assert found == [{"run": run.name, "step": 1, "loss": 0.5} for run in runs[:2]]
    speed = logs.read(tmp_path / "speed.jsonl")
    assert [line["step_seconds"] for line in speed] == [2.0, 2.0]
    assert said == [f"{runs[0] / 'metrics.jsonl'}: 1 lines are damaged and left out"] * 2
