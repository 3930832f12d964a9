"""The device mesh and the two placements used on it: batches over `data`, parameters everywhere."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sie_jax.errors import UserError


def make(data: int = -1) -> Mesh:
    """A mesh with the axis `data` over the first `data` devices; -1 takes all.

    Raises UserError where there are fewer devices than asked for.
    """
    devices = jax.device_count()
    size = devices if data == -1 else data
    if size > devices:
        raise UserError(
            f"mesh.data is {size}, but there are {devices} devices: lower it, or use -1"
        )
    return jax.make_mesh((size,), ("data",), axis_types=(AxisType.Auto,))


def check_batch(mesh: Mesh, batch_size: int, field: str = "train.batch_size") -> None:
    """Raises UserError where the axis `data` does not divide the batch."""
    size = mesh.shape["data"]
    if batch_size % size:
        raise UserError(
            f"{field} {batch_size} does not divide over mesh.data {size}: "
            f"use a multiple of {size}, such as {-(-batch_size // size) * size}"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharded(mesh: Mesh) -> NamedSharding:
    """The leading axis split over `data`."""
    return NamedSharding(mesh, PartitionSpec("data"))


def place_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Puts this process's rows of a batch on its devices, as one global array per column."""
    sharding = batch_sharded(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, values)
        for name, values in batch.items()
    }
