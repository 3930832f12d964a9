"""What TensorBoard and Weights & Biases are given, read back from their files."""

import struct
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event

from sie_jax.errors import UserError
from sie_jax.training import logs, tracking
from sie_jax.training.logs import MetricsLog


def events(folder: Path) -> list[Event]:
    """All events of a folder, in order: length, checksum, event, checksum, in every file."""
    found = []
    for path in sorted(folder.glob("events.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            found.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += 16 + length
    return found


def scalars(folder: Path) -> list[tuple[int, str, float]]:
    return [
        (event.step, value.tag, value.simple_value)
        for event in events(folder)
        for value in event.summary.value
    ]


def tracked(workdir: Path, **options: Any) -> Any:
    settings = {"wandb_project": "", "group": "shop", "config": {"seed": 3}} | options
    return tracking.trackers(workdir / "tracking", **settings)


def test_tensorboard_gets_every_line_under_its_run(tmp_path: Path) -> None:
    with tracked(tmp_path) as trackers:
        for run in ("uniform-0", "weighted-0"):
            log = MetricsLog(tmp_path / run / "metrics.jsonl", trackers)
            log.rewind(run, 0)
            log.write(run, 1, loss=0.5, gradient_norm=2.0)
            log.write(run, 2, loss=0.25)
    expected = [(1, "loss", 0.5), (1, "gradient_norm", 2.0), (2, "loss", 0.25)]
    assert scalars(tmp_path / "tracking" / "uniform-0") == expected
    assert scalars(tmp_path / "tracking" / "weighted-0") == expected


def test_a_resumed_run_purges_what_it_does_again(tmp_path: Path) -> None:
    for first in (0, 1):
        with tracked(tmp_path) as trackers:
            log = MetricsLog(tmp_path / "metrics.jsonl", trackers)
            log.rewind("uniform-0", first)
            for step in range(first + 1, 4):
                log.write("uniform-0", step, loss=1.0 / step)
    starts = [
        event.step
        for event in events(tmp_path / "tracking" / "uniform-0")
        if event.session_log.status == 1  # START: steps from here on are dropped when shown
    ]
    assert starts == [1, 2]
    assert [line["step"] for line in logs.read(tmp_path / "metrics.jsonl")] == [1, 2, 3]


def test_weights_and_biases_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for first in (0, 1):
        with tracked(tmp_path, wandb_project="relevance") as trackers:
            log = MetricsLog(tmp_path / "metrics.jsonl", trackers)
            log.rewind("uniform-0", first)
            log.write("uniform-0", first + 1, validation_accuracy=0.5)
    (known,) = (tmp_path / "tracking").glob("*.wandb_id")
    files = sorted((tmp_path / "tracking" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2  # one for each process, of one run
    for path in files:
        assert path.stem == f"run-{known.read_text()}"
        data = path.read_bytes()
        assert all(text in data for text in (b"validation_accuracy", b"relevance", b"uniform-0"))


def test_without_wandb_one_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    with (
        pytest.raises(UserError, match=r"pip install 'sie_jax\[wandb\]'"),
        tracked(tmp_path, wandb_project="relevance"),
    ):
        pass
