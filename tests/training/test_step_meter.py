"""The step meter against a clock of the test and the kernel's own count of memory."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from sie_jax.training.step_meter import StepMeter, peak_memory

STATUS = Path("/proc/self/status")


class MadeUpClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run_steps(meter: StepMeter, clock: MadeUpClock, *, steps: int, wait: float) -> None:
    """Steps of `wait` and 3 seconds, each of 7 rows with 50 tokens in 8 · 10 slots."""
    for _ in range(steps):
        with meter.waiting():
            clock.now += wait
        clock.now += 3.0
        meter.step(rows=7, tokens=50, slots=80, flops=600)


def test_an_interval_is_what_its_steps_took() -> None:
    clock = MadeUpClock()
    devices = jax.local_devices(backend="cpu")
    meter = StepMeter(400.0, devices, clock=clock)
    assert meter.interval() == {}  # no step yet
    run_steps(meter, clock, steps=4, wait=1.0)
    with meter.outside_steps():
        clock.now += 20.0
    found = meter.interval()
    memory = {name: found.pop(name) for name in peak_memory(devices)}
    assert memory
    assert found == pytest.approx(
        {
            "step_seconds": 1 + 3,
            "data_wait_share": 1 / (1 + 3),
            "examples_per_second": 7 / 4,
            "tokens_per_second": 50 / 4,
            "padding_share": 30 / 80,
            "outside_steps_seconds": 20,
            "model_flops_utilisation": 600 / 4 / 400,
        }
    )
    run_steps(meter, clock, steps=2, wait=0.0)  # nothing of the interval before is left
    second = meter.interval()
    assert (second["step_seconds"], second["data_wait_share"]) == (3, 0)
    assert (second["examples_per_second"], second["outside_steps_seconds"]) == (7 / 3, 0)
    assert meter.interval() == {}


@pytest.mark.parametrize(("peak", "flops"), [(None, (600, 600)), (400.0, (600, None, 600))])
def test_no_utilisation_if_the_peak_or_the_flops_are_not_known(
    peak: float | None, flops: tuple[int | None, ...]
) -> None:
    clock = MadeUpClock()
    meter = StepMeter(peak, jax.local_devices(backend="cpu"), clock=clock)
    for one in flops:
        clock.now += 1.0
        meter.step(rows=7, tokens=50, slots=80, flops=one)
    found = meter.interval()
    assert "model_flops_utilisation" not in found
    assert found["step_seconds"] == 1.0
    run_steps(meter, clock, steps=1, wait=0.0)  # the next interval does not remember
    assert ("model_flops_utilisation" in meter.interval()) == (peak is not None)


def test_the_clock_is_real_where_none_is_given() -> None:
    meter = StepMeter(None, jax.local_devices(backend="cpu"))
    with meter.waiting():
        jnp.ones(()).block_until_ready()
    meter.step(rows=1, tokens=1, slots=1, flops=1)
    found = meter.interval()
    assert found["step_seconds"] > 0
    assert 0 < found["data_wait_share"] <= 1


def test_memory_of_the_fullest_device() -> None:
    # CPUs do not count, so the devices are made up
    devices: Any = [
        SimpleNamespace(memory_stats=lambda peak=peak: {"peak_bytes_in_use": peak, "limit": 9})
        for peak in (3, 8, 5)
    ]
    assert peak_memory(devices) == {"peak_memory_bytes": 8}


@pytest.mark.skipif(not STATUS.exists(), reason="another count of the process is Linux's")
def test_memory_of_the_process_where_devices_do_not_count() -> None:
    found = peak_memory(jax.local_devices(backend="cpu"))
    assert list(found) == ["peak_host_memory_bytes"]
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
    resident = int(line.split()[1]) * 1024
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # the kernel adds up the two at slightly different times
    assert 0.98 * resident < found["peak_host_memory_bytes"] < machine
