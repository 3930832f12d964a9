"""Step time, waiting, utilisation and memory of a training loop, one log interval at a time."""

import contextlib
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import jax


class StepMeter:
    """Measures the steps of a training loop, one log interval after the other.

    The loop reports when it waits (`waiting`), when it does something other than training
    (`outside_steps`), and what each step processed (`step`). `interval` then sums up the steps
    since the last call. All counts are of the whole step, over all processes.

    The first interval begins when the meter is created.

    Args:
      peak: FLOP/s of all devices that share a step: `peaks.peak_flops` times their number; None if
        it is not known.
      devices: this process's devices, for their memory.
      clock: returns seconds that never decrease.
    """

    def __init__(
        self,
        peak: float | None,
        devices: Sequence[jax.Device],
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._peak, self._devices, self._clock = peak, devices, clock
        self._begin(clock())

    def _begin(self, now: float) -> None:
        self._began, self._waited, self._outside = now, 0.0, 0.0
        self._steps, self._rows, self._tokens, self._slots = 0, 0, 0, 0
        self._flops: int | None = 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Surrounds `next(iterator)`. Profiles show it as "waiting for data"."""
        began = self._clock()
        with jax.profiler.TraceAnnotation("waiting for data"):
            yield
        self._waited += self._clock() - began

    @contextlib.contextmanager
    def outside_steps(self) -> Iterator[None]:
        """Surrounds what belongs to no step: validation, checkpoints. It never holds `waiting`."""
        began = self._clock()
        yield
        self._outside += self._clock() - began

    def step(self, *, rows: int, tokens: int, slots: int, flops: int | None) -> None:
        """Records a step that is done.

        Call it when the step's numbers have come back from the device: JAX returns from a step
        before the device has finished it.

        Args:
          rows, tokens: the numbers of real ones, without padding.
          slots: the places for tokens, B · T.
          flops: the model's `step_flops`; None if they are not known.
        """
        self._steps += 1
        self._rows += rows
        self._tokens += tokens
        self._slots += slots
        self._flops = None if self._flops is None or flops is None else self._flops + flops

    def interval(self) -> dict[str, float]:
        """Sums up the steps since the last call; empty if there were none.

        `step_seconds`: seconds per step, with waiting, without `outside_steps`.
        `data_wait_share`: the share of that time spent in `waiting`, 0 to 1.
        `examples_per_second`, `tokens_per_second`: real ones, without padding.
        `padding_share`: the share of slots without a real token, 0 to 1.
        `model_flops_utilisation`: FLOPs over that time and `peak`; absent if either is not known.
        `outside_steps_seconds`: seconds in `outside_steps`.
        `peak_memory_bytes` or `peak_host_memory_bytes`: as `peak_memory`.
        """
        if not self._steps:
            return {}
        now = self._clock()
        seconds = now - self._began - self._outside
        values: dict[str, float] = {
            "step_seconds": seconds / self._steps,
            "data_wait_share": self._waited / seconds,
            "examples_per_second": self._rows / seconds,
            "tokens_per_second": self._tokens / seconds,
            "padding_share": 1 - self._tokens / self._slots,
            "outside_steps_seconds": self._outside,
        }
        if self._peak is not None and self._flops is not None:
            values["model_flops_utilisation"] = self._flops / seconds / self._peak
        self._begin(now)
        return values | peak_memory(self._devices)


def peak_memory(devices: Sequence[jax.Device]) -> dict[str, float]:
    """The most memory that was in use at once since the process began, in bytes.

    `peak_memory_bytes`: that of the fullest of `devices`, as its allocator counts. If no allocator
    counts, as on CPUs: `peak_host_memory_bytes`, the peak resident set of the whole process.
    """
    counted = [device.memory_stats() or {} for device in devices]
    peaks = [stats["peak_bytes_in_use"] for stats in counted if "peak_bytes_in_use" in stats]
    if peaks:
        return {"peak_memory_bytes": max(peaks)}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"peak_host_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
