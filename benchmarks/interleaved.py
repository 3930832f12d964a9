"""Times functions in turn in one process, and reads what XLA says of their memory."""

import datetime
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table


def measure(
    variants: Mapping[str, Callable[..., Any]],
    inputs: tuple[Any, ...],
    rounds: int,
    compilations: int = 1,
) -> dict[str, dict[str, Any]]:
    """Seconds, temporary bytes, operations and compile seconds of each; ratios to the first.

    They run in turn, round after round, and a time ratio is the median over rounds of the ratio to
    the first of the same round (with quartiles), so that a machine whose speed drifts does not
    matter. Compile seconds are tracing, lowering and compiling, the median of `compilations`.
    """
    compiled: dict[str, Any] = {}
    compile_seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(compilations):
        for name, variant in variants.items():
            jax.clear_caches()
            start = time.perf_counter()
            compiled[name] = jax.jit(variant).lower(*inputs).compile()
            compile_seconds[name].append(time.perf_counter() - start)
    results: dict[str, dict[str, Any]] = {}
    for name, executable in compiled.items():
        results[name] = {
            "compile_seconds": statistics.median(compile_seconds[name]),
            "temp_bytes": executable.memory_analysis().temp_size_in_bytes,
            "flops": (executable.cost_analysis() or {}).get("flops"),
        }
        jax.block_until_ready(executable(*inputs))  # warm-up
    seconds: dict[str, list[float]] = {name: [] for name in compiled}
    order = random.Random(0)
    for _ in range(rounds):
        # In another order every round: what a variant leaves in caches meets all the others.
        for name in order.sample(list(compiled), len(compiled)):
            start = time.perf_counter()
            jax.block_until_ready(compiled[name](*inputs))
            seconds[name].append(time.perf_counter() - start)
    first = next(iter(results))
    for name, result in results.items():
        ratios = [one / plain for one, plain in zip(seconds[name], seconds[first], strict=True)]
        result["seconds"] = statistics.median(seconds[name])
        result["time_ratio"] = statistics.median(ratios)
        result["time_ratio_low"], result["time_ratio_high"] = np.percentile(ratios, [25, 75])
        result["memory_ratio"] = result["temp_bytes"] / results[first]["temp_bytes"]
    return results


def machine() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].split(":", 1)[1].strip() if names else cpu
    return {
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "date": datetime.date.today().isoformat(),
    }


def print_table(results: Mapping[str, Any], title: str) -> None:
    table = Table(title=title)
    table.add_column("variant")
    for column in ("ms", "time ratio", "quartiles", "temp MiB", "memory ratio", "compile s"):
        table.add_column(column, justify="right")
    for name, result in results.items():
        table.add_row(
            name,
            f"{1e3 * result['seconds']:.0f}",
            f"{result['time_ratio']:.3f}",
            f"{result['time_ratio_low']:.3f}–{result['time_ratio_high']:.3f}",
            f"{result['temp_bytes'] / 2**20:.0f}",
            f"{result['memory_ratio']:.3f}",
            f"{result['compile_seconds']:.1f}",
        )
    Console(width=120).print(table)
