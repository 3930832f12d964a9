import time
from pathlib import Path

import pytest

from sie_jax.training import cost
from sie_jax.training.cost import Cost, CostMeter


def test_costs_add_up() -> None:
    assert Cost(1.5, 10, 30) + Cost(0.5, 5, 10) == Cost(2.0, 15, 40)
    assert sum([Cost(1, 1, 1), Cost(2, 2, 2)], start=Cost()) == Cost(3, 3, 3)


def test_seconds_of_several_processes_add_up(tmp_path: Path) -> None:
    first = CostMeter(tmp_path / "one.json")
    time.sleep(0.02)
    first.tick(force=True)
    second = CostMeter(tmp_path / "one.json")
    assert second.recorded.seconds >= 0.02
    time.sleep(0.02)
    second.tick(force=True)
    assert cost.read(tmp_path / "one.json").seconds >= 0.04


def test_a_tick_within_a_second_writes_nothing(tmp_path: Path) -> None:
    CostMeter(tmp_path / "one.json").tick()
    assert not (tmp_path / "one.json").exists()


def test_what_is_charged_is_set_and_not_added(tmp_path: Path) -> None:
    for _ in range(2):
        CostMeter(tmp_path / "one.json").charge(examples=7, forward_equivalents=21)
    assert cost.read(tmp_path / "one.json")[1:] == (7, 21)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"hours": 1}', b"\xff"])
def test_a_damaged_file_counts_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "one.json").write_bytes(content)
    meter = CostMeter(tmp_path / "one.json")
    assert meter.recorded == Cost()
    meter.charge(examples=1, forward_equivalents=3)
    assert cost.read(tmp_path / "one.json").examples == 1
