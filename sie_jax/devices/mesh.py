"""The device mesh, and where on it batches, parameters and optimiser states lie.

Three axes. `data` and `fsdp` split the batch, each device taking other rows. `fsdp` also splits
every large parameter and its optimiser state: a device keeps its share and is given the others'
for the time of a step. `tensor` splits the matrix products themselves, as Megatron does (Shoeybi et
al. 2019, section 3): heads and hidden units in the first product of a block, their sum in the
second; all devices along it work on the same rows.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sie_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
OVER_BATCH = ("data", "fsdp")
RULES: tuple[tuple[str, PartitionSpec], ...] = (
    (r"embeddings\b", PartitionSpec(None, ("fsdp", "tensor"))),
    (r"\b(query|key|value|intermediate)\b.*\bkernel\b", PartitionSpec("fsdp", "tensor")),
    (r"\b(query|key|value|intermediate)\b.*\bbias\b", PartitionSpec("tensor")),
    (r"\b(attention_output|output)\b.*\bkernel\b", PartitionSpec("tensor", "fsdp")),
    (r"\b(pooler|transform)\b.*\bkernel\b", PartitionSpec("fsdp", None)),
)
"""Where a parameter lies, by its path, as in `bert.layers.0.query.kernel`: the first rule that is
found in it and has as many dimensions. What no rule fits lies whole on every device. The paths of
an optimiser's moments end as their parameters' do, and so they lie beside them."""


@dataclasses.dataclass(slots=True, kw_only=True)
class MeshConfig:
    """The section `mesh`: devices along each axis; -1 takes what is left, and can stand once."""

    data: int = -1  # splits the batch
    fsdp: int = 1  # splits the batch, and parameters and optimizer state with it
    tensor: int = 1  # splits the matrix products

    def check(self) -> None:
        """Raises UserError for a number that is none of devices."""
        for field in AXES:
            size = getattr(self, field)
            if size == 0 or size < -1:
                raise UserError(f"mesh.{field} is {size}: give a number of devices, or -1")

    def make(self) -> Mesh:
        """The mesh over this machine's devices, as `make` does."""
        return make(self.data, self.fsdp, self.tensor)


def make(data: int = -1, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """A mesh with the axes `data`, `fsdp` and `tensor`; an axis of -1 takes the devices left.

    Takes the first devices where fewer than all are asked for, which several processes cannot.

    Raises UserError where the devices do not make such a mesh.
    """
    sizes, devices = [data, fsdp, tensor], jax.device_count()
    named = ", ".join(f"mesh.{axis} {size}" for axis, size in zip(AXES, sizes, strict=True))
    if sizes.count(-1) > 1:
        raise UserError(f"{named}: -1 is what is left, and can stand once")
    fixed = math.prod(size for size in sizes if size != -1)
    if -1 in sizes:
        if devices % fixed:
            raise UserError(
                f"{named}: {devices} devices do not divide by {fixed}, which the other axes take: "
                "change them"
            )
        sizes[sizes.index(-1)] = devices // fixed
    elif fixed > devices:
        raise UserError(
            f"{named} is {fixed} devices, but there are {devices} devices: lower one, or use -1"
        )
    elif fixed < devices and jax.process_count() > 1:
        raise UserError(
            f"{named} is {fixed} devices, but the {jax.process_count()} processes have {devices}, "
            "and each has to take part: raise one, or use -1"
        )
    return jax.make_mesh(
        tuple(sizes), AXES, (AxisType.Auto,) * 3, devices=jax.devices()[: math.prod(sizes)]
    )


def check_batch(mesh: Mesh, batch_size: int, field: str = "train.batch_size") -> None:
    """Raises UserError where the axes over which a batch is split do not divide it."""
    size = math.prod(mesh.shape[axis] for axis in OVER_BATCH)
    if batch_size % size:
        raise UserError(
            f"{field} {batch_size} does not divide over mesh.data × mesh.fsdp, {size} devices: "
            f"use a multiple of {size}, such as {-(-batch_size // size) * size}"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharded(mesh: Mesh) -> NamedSharding:
    """The leading axis split over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(OVER_BATCH))


def shardings(mesh: Mesh, tree: Any) -> Any:
    """Where each array of a tree of parameters or of a training state lies, by RULES.

    tree: anything with shapes, `jax.eval_shape`'s included.

    Raises UserError, naming the parameter, where an axis does not divide it.
    """
    return jax.tree_util.tree_map_with_path(_sharding(mesh, lambda axis: True), tree)


def abstract(mesh: Mesh, tree: Any) -> Any:
    """The tree's shapes, each with the sharding that RULES give it; nothing is computed."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings(mesh, tree),
    )


def gathered(mesh: Mesh, tree: Any) -> Any:
    """Under `jit`: the tree with `fsdp`'s shares put together, for the time of a step.

    Otherwise the compiler may split the work of a product over `fsdp` and move activations, which
    are larger than the parameters.
    """
    whole = jax.tree_util.tree_map_with_path(_sharding(mesh, lambda axis: axis != "fsdp"), tree)
    return jax.lax.with_sharding_constraint(tree, whole)


def initialised(mesh: Mesh, init: Callable[[], Any]) -> Any:
    """The tree that `init` makes, each array made where RULES put it: whole it is on no device.

    The values are the same on every mesh, up to rounding.
    """
    return jax.jit(init, out_shardings=shardings(mesh, jax.eval_shape(init)))()


def place(mesh: Mesh, tree: Any) -> Any:
    """The tree's arrays, the same in every process, laid on the mesh by RULES, each a copy."""

    def placed(leaf: Any, sharding: NamedSharding) -> jax.Array:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.jit(lambda x: x.copy(), out_shardings=sharding)(leaf)
        values = np.array(leaf)
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

    return jax.tree.map(placed, tree, shardings(mesh, tree))


def fetch(mesh: Mesh, tree: Any) -> Any:
    """The whole arrays of a tree on the host, in every process."""
    return jax.device_get(_whole(mesh)(tree))


def local_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Which rows of a global batch lie on this process's devices, int64 ascending.

    Those that `place_batch` wants of this process. Processes along `tensor` have the same ones.
    """
    places = batch_sharded(mesh).addressable_devices_indices_map((batch_size,))
    rows = [np.arange(batch_size)[index] for index in places.values()]
    return np.unique(np.concatenate(rows))


def place_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Puts this process's rows of a batch on its devices, as one global array per column."""
    sharding = batch_sharded(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, values)
        for name, values in batch.items()
    }


@functools.cache
def _whole(mesh: Mesh) -> Callable[[Any], Any]:
    return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))


def _sharding(
    mesh: Mesh, keeps: Callable[[str], bool]
) -> Callable[[tuple[Any, ...], Any], NamedSharding]:
    """Gives a leaf's placement from its path, on those axes that `keeps` is true for."""

    def of(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")
        for pattern, spec in RULES:
            if re.search(pattern, name) and len(spec) == leaf.ndim:
                axes = [_kept(entry, keeps) for entry in spec]
                for size, names in zip(leaf.shape, axes, strict=True):
                    over = math.prod(mesh.shape[axis] for axis in names)
                    if size % over:
                        raise UserError(
                            f"{name} of shape {leaf.shape} does not divide over "
                            f"{' × '.join(f'mesh.{axis}' for axis in names)}, {over} devices: "
                            "lower them"
                        )
                return NamedSharding(mesh, PartitionSpec(*(names or None for names in axes)))
        return replicated(mesh)

    return of


def _kept(entry: str | tuple[str, ...] | None, keeps: Callable[[str], bool]) -> tuple[str, ...]:
    names = (entry,) if isinstance(entry, str) else entry or ()
    return tuple(name for name in names if keeps(name))
