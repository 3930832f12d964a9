"""What a long run says of itself: step time, waiting, utilisation, memory, and a profile."""

import contextlib
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from sie_jax.tasks import masking

# Dense peaks in TFLOP/s as (bfloat16, float32) of one JAX device, by its `device_kind`. From Ampere
# on, NVIDIA's data sheets state most tensor core peaks with 2:4 sparsity: half of those. float32 is
# what JAX's default precision makes of it (`jax.lax.Precision`): TF32 from Ampere on, one bfloat16
# pass on TPUs. The tensor cores of V100 and T4 do not take bfloat16: its peak is not known there.
_TERAFLOPS: dict[str, tuple[float | None, float | None]] = {
    # 46 and 123 per chip, which is two devices: Jouppi et al. 2020, https://doi.org/10.1145/3360307
    "TPU v2": (23.0, 23.0),
    "TPU v3": (61.5, 61.5),
    # https://cloud.google.com/tpu/docs/v4, and the same with v5e, v5p, v6e: a chip is one device
    "TPU v4": (275.0, 275.0),
    "TPU v5 lite": (197.0, 197.0),
    "TPU v5e": (197.0, 197.0),
    "TPU v5": (459.0, 459.0),
    "TPU v5p": (459.0, 459.0),
    "TPU v6 lite": (918.0, 918.0),
    "TPU v6e": (918.0, 918.0),
    # https://cloud.google.com/tpu/docs/tpu7x: 2307 per chip, which is two devices
    "TPU7x": (1153.5, 1153.5),
    # https://www.nvidia.com/en-us/data-center/v100
    "Tesla V100-SXM2-16GB": (None, 15.7),
    "Tesla V100-SXM2-32GB": (None, 15.7),
    "Tesla V100-PCIE-16GB": (None, 14.0),
    "Tesla V100-PCIE-32GB": (None, 14.0),
    # https://www.nvidia.com/en-us/data-center/tesla-t4
    "Tesla T4": (None, 8.1),
    # https://www.nvidia.com/en-us/data-center/a100
    "NVIDIA A100-SXM4-40GB": (312.0, 156.0),
    "NVIDIA A100-SXM4-80GB": (312.0, 156.0),
    "NVIDIA A100-PCIE-40GB": (312.0, 156.0),
    "NVIDIA A100 80GB PCIe": (312.0, 156.0),
    # https://www.nvidia.com/en-us/data-center/products/a10-gpu
    "NVIDIA A10": (125.0, 62.5),
    # https://www.nvidia.com/en-us/data-center/l4, and the same with l40s
    "NVIDIA L4": (121.0, 60.0),
    "NVIDIA L40S": (362.05, 183.0),
    # https://www.nvidia.com/en-us/data-center/h100, and the same with h200
    "NVIDIA H100 80GB HBM3": (989.5, 494.5),
    "NVIDIA H100 PCIe": (756.5, 378.0),
    "NVIDIA H100 NVL": (835.5, 417.5),
    "NVIDIA H200": (989.5, 494.5),
    "NVIDIA H200 NVL": (835.5, 417.5),
    # https://www.nvidia.com/en-us/data-center/hgx; its data sheets differ on TF32
    "NVIDIA B200": (2250.0, None),
}


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """The dense peak, in FLOP/s, of one JAX device; None where it is not known.

    Args:
      device_kind: `jax.Device.device_kind`, taken literally: a part of a GPU (MIG) has another
        name than the whole, and is not known.
      dtype: what matrix products run in, "bfloat16" or "float32"; float32 under JAX's default
        matmul precision, in which a TPU makes one bfloat16 pass and a GPU uses TF32 if it can.

    CPUs are not known, as is any other dtype.
    """
    bfloat16, float32 = _TERAFLOPS.get(device_kind, (None, None))
    teraflops = {"bfloat16": bfloat16, "float32": float32}.get(dtype)
    return None if teraflops is None else teraflops * 1e12


def step_flops(params: Any, rows: int, length: int) -> int:
    """Model FLOPs of one training step on `[rows, length]` token ids.

        3 · 2 · rows · (Σ_W size(W) · positions(W)  +  layers · 2 · length² · hidden)

    the last term being attention's q kᵀ and its product with v. A multiply-add is two operations,
    and the backward pass twice the forward one. `positions` is how many of a row's positions meet
    the weight W: `length` in the encoder's layers, 1 in the pooler and the classifiers, the masked
    ones in the head that names words. Per token that is 6 · (parameters of the layers)
    + 12 · layers · hidden · length, as of Chowdhery et al. 2022, appendix B
    (https://arxiv.org/abs/2204.02311), and the heads. Padding counts, as the device multiplies it
    too. What is looked up (embeddings), added or normalised does not, nor does what a step makes
    twice (rematerialisation) or besides (norms of per-example gradients, a validation gradient).

    It walks the whole tree, in a millisecond or two: a loop keeps what it gave for each shape.

    Args:
      params: the parameters of a `PairClassifier` or `PretrainingModel`, arrays or their shapes.
      rows: the batch's rows B over all processes, padding rows too.
      length: tokens T that every row is padded to.

    Raises:
      ValueError: a matrix of another model, of which it is not known what it multiplies.
    """
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    masked = masking.places(length)
    positions_of = {
        "layers": length,
        "pooler": 1,
        "classifier": 1,
        "relationship": 1,
        "transform": masked,
        # the head that names words multiplies by the table that the encoder looks up
        "word_embeddings": masked if any("vocabulary_bias" in name for name in leaves) else 0,
        "position_embeddings": 0,
        "token_type_embeddings": 0,
    }
    products = 0
    for name, leaf in leaves.items():
        if leaf.ndim < 2:  # added or multiplied one by one
            continue
        parts = name.split(".")
        known = [positions_of[part] for part in parts if part in positions_of]
        if not known:
            raise ValueError(f"it is not known at how many positions {name} multiplies")
        products += leaf.size * known[0]
        if "query" in parts:
            products += 2 * length**2 * leaf.shape[-1]
    return 3 * 2 * rows * products


class StepMeter:
    """Measures a training loop's steps, one log interval after the other.

    The loop tells it when it waits (`waiting`), when it does something else than train
    (`outside_steps`), and what each step was made of (`step`); `interval` then gives what the steps
    since the last call amount to. All counts are of the whole step, over all processes.

    The first interval begins when the meter is made.

    Args:
      peak: FLOP/s of all devices that share a step: `peak_flops` times their number; None where
        it is not known.
      devices: this process's devices, whose memory is looked at.
      clock: seconds, ever growing.
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
        self._steps, self._rows, self._tokens, self._slots, self._flops = 0, 0, 0, 0, 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around `next(iterator)`. Profiles show it as "waiting for data"."""
        began = self._clock()
        with jax.profiler.TraceAnnotation("waiting for data"):
            yield
        self._waited += self._clock() - began

    @contextlib.contextmanager
    def outside_steps(self) -> Iterator[None]:
        """Around what belongs to no step: validation, checkpoints. Not around `waiting`."""
        began = self._clock()
        yield
        self._outside += self._clock() - began

    def step(self, *, rows: int, tokens: int, slots: int, flops: int) -> None:
        """A step is done.

        Call it once the step's numbers have come back from the device: JAX returns from a step
        before the device has done it.

        Args:
          rows, tokens: real ones, without padding.
          slots: places for tokens, B · T.
          flops: `step_flops`.
        """
        self._steps += 1
        self._rows += rows
        self._tokens += tokens
        self._slots += slots
        self._flops += flops

    def interval(self) -> dict[str, float]:
        """What the steps since the last call amount to; empty where there were none.

        `step_seconds`: seconds per step, waiting included, `outside_steps` not.
        `data_wait_share`: the share of that time spent in `waiting`, 0 to 1.
        `examples_per_second`, `tokens_per_second`: real ones.
        `padding_share`: the share of slots without a real token, 0 to 1.
        `model_flops_utilisation`: FLOPs over that time and `peak`; absent where there is no peak.
        `outside_steps_seconds`: seconds in `outside_steps`.
        `peak_memory_bytes`: see `peak_memory`; or `peak_host_memory_bytes`.
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
        if self._peak is not None:
            values["model_flops_utilisation"] = self._flops / seconds / self._peak
        self._begin(now)
        return values | peak_memory(self._devices)


def peak_memory(devices: Sequence[jax.Device]) -> dict[str, float]:
    """The most memory that was in use at once since the process began, in bytes.

    `peak_memory_bytes`: of the fullest of `devices`, as its allocator counts. Where none counts, as
    on CPUs: `peak_host_memory_bytes`, the peak resident set of the process, all of it.
    """
    counted = [device.memory_stats() or {} for device in devices]
    peaks = [stats["peak_bytes_in_use"] for stats in counted if "peak_bytes_in_use" in stats]
    if peaks:
        return {"peak_memory_bytes": max(peaks)}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"peak_host_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}


class ProfilerWindow:
    """Traces the steps from `first` to `last`; made by `profiler_window`."""

    def __init__(self, folder: Path, steps: Sequence[int] | None) -> None:
        self._folder = folder
        self._steps = range(steps[0], steps[1] + 1) if steps else range(0)
        self._step = contextlib.ExitStack()
        self._tracing = False

    def before(self, step: int) -> None:
        """Call it first in the loop's body, before the batch of step `step` is waited for."""
        if step not in self._steps:
            return
        if not self._tracing:
            options = jax.profiler.ProfileOptions()
            # every call of a Python function would be an event: the host would be slower in the
            # trace than it is, and the trace mostly of them
            options.python_tracer_level = 0
            jax.profiler.start_trace(
                self._folder, create_perfetto_trace=True, profiler_options=options
            )
            self._tracing = True
        # XProf divides the trace into steps by this
        self._step.enter_context(jax.profiler.StepTraceAnnotation("train", step_num=step))

    def after(self, step: int, outputs: Any) -> None:
        """Call it last in the loop's body; `outputs` are arrays that step `step` makes.

        After the window's last step this waits for them, so that the trace holds all of its work.
        """
        self._step.close()
        if self._tracing and step >= self._steps[-1]:
            jax.block_until_ready(outputs)
            self.close()

    def close(self) -> None:
        """Ends what goes on, and writes the trace if there is one."""
        self._step.close()
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()


@contextlib.contextmanager
def profiler_window(folder: Path, steps: Sequence[int] | None) -> Iterator[ProfilerWindow]:
    """Traces the steps `first` to `last`, both included, into `folder`; no step where None.

    A loop calls `before(step)` and `after(step, outputs)` at every step. The trace lies in
    `folder`/plugins/profile/<time>: `*.xplane.pb` for TensorBoard, `perfetto_trace.json.gz` for
    Perfetto. A run that goes on from within the window traces the rest of it, and one that ends
    within it, in whatever way, leaves what it has. Only the first process traces: all do the same.

    Raises:
      RuntimeError: a trace of this process is already going on.
    """
    window = ProfilerWindow(folder, steps if jax.process_index() == 0 else None)
    with contextlib.closing(window):
        yield window
