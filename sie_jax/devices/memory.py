"""The memory that training needs on each device, and whether the device has it."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sie_jax.errors import UserError

SHORTEST = 8  # the fewest tokens that a batch is padded to


class Need(NamedTuple):
    """Bytes on one device; of an array that the mesh splits, the device's own part.

    `step` is the memory of the compiled step beyond its arguments: activations, gradients, buffers.
    """

    parameters: int
    optimizer: int
    batch: int
    step: int

    def __str__(self) -> str:
        parts = ", ".join(
            f"{name} {size(value)}" for name, value in self._asdict().items() if value
        )
        return f"{size(sum(self))} on each device ({parts})"


def size(number: float) -> str:
    """Bytes with a unit and three digits: 999 B, 1.5 kB, 24.1 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def of_state(params: Any, opt_state: Any) -> Need:
    """The need of parameters and optimiser state; shapes with their shardings are enough."""
    return Need(held(params), held(opt_state), 0, 0)


def of_step(step: Any, state: Any, batch: Any) -> Need:
    """The need of one call of a jitted training step, which is compiled and not run.

    The call itself then finds it compiled. If a backend does not report the memory of a program,
    `step` is 0.
    """
    used = step.lower(state, batch).compile().memory_analysis()
    beside = 0
    if used is not None:
        # results that overwrite arguments are counted with the arguments
        beside = used.temp_size_in_bytes + used.output_size_in_bytes - used.alias_size_in_bytes
    return of_state(state.params, state.opt_state)._replace(batch=held(batch), step=beside)


def held(tree: Any) -> int:
    """Bytes of a tree's arrays on one device."""
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def limit(devices: Sequence[jax.Device]) -> int | None:
    """The memory of each of this process's devices, in bytes; None if it is not known.

    Devices on the host's processor share its memory.
    """
    stats = devices[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return of_machine() // len(devices) if devices[0].platform == "cpu" else None


def of_machine() -> int:
    """The memory of this machine's processor, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_machine(needed: int, what: str, *, fix: str = "make it smaller") -> None:
    """Raises UserError if `what` needs more bytes than this machine has; nothing is allocated."""
    require(what, needed, of_machine(), fix=fix)


def require(what: str, needed: int, there: int | None, *, fix: str) -> None:
    """Raises UserError where something needs at least so many bytes, and fewer are there."""
    if there is not None and needed > there:
        raise UserError(
            f"{what} needs {size(needed)} of memory, but this machine has {size(there)}: {fix}"
        )


def require_batch(
    field: str, rows: int, devices: Sequence[jax.Device], *, width: int, layers: int
) -> None:
    """As `require`, of a batch of the shortest texts, with so many rows on each device.

    Each layer of a model of this width keeps what it starts from, in float32.
    """
    least = 4 * SHORTEST * width * layers * rows
    require(f"{field} of {rows:,} on each device", least, limit(devices), fix="lower it")


def check(need: Need, devices: Sequence[jax.Device]) -> str:
    """One line on the memory that is needed and the memory that there is.

    Raises UserError if the devices have too little.
    """
    there = limit(devices)
    if there is None:
        return f"{need}; the memory of {devices[0].device_kind} is not known"
    if sum(need) > there:
        raise UserError(
            f"training needs {need}, but {devices[0].device_kind} has {size(there)} for each: "
            "raise mesh.fsdp, lower train.batch_size, or set model.remat=layers"
        )
    return f"{need} of {size(there)}"
