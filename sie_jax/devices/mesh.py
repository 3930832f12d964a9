"""The device mesh, and how batches, parameters and optimiser states are laid out on it.

The mesh has three axes. `data` and `fsdp` split the batch: each device takes other rows. `fsdp`
also splits every large parameter and its optimiser state: a device keeps its share, and receives
those of the others for the time of a step. `tensor` splits the matrix products themselves, as
Megatron does (Shoeybi et al. 2019, section 3): heads and hidden units in the first product of a
block, their sum in the second. All devices along it work on the same rows.

A model says how each of its parameters is split. The Flax variable has the metadata `mesh_axes`:
for each dimension an axis of the mesh, several, or None. An array without it, as any array that is
not in a Flax variable, lies whole on every device. An optimiser's moments are trees of the same
variables, so each lies beside its parameter.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sie_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
OVER_BATCH = ("data", "fsdp")
Axes = str | tuple[str, ...] | None


@dataclasses.dataclass(slots=True, kw_only=True)
class MeshConfig:
    """The section `mesh`: devices along each axis; one axis may be -1, which takes the rest."""

    data: int = -1  # splits the batch
    fsdp: int = 1  # splits the batch, and parameters and optimizer state with it
    tensor: int = 1  # splits the matrix products

    def check(self) -> None:
        """Raises UserError for a value that is not a number of devices."""
        for field in AXES:
            size = getattr(self, field)
            if size == 0 or size < -1:
                raise UserError(f"mesh.{field} is {size}: give a number of devices, or -1")

    def make(self) -> Mesh:
        """The mesh over this machine's devices, as `make` does."""
        return make(self.data, self.fsdp, self.tensor)


def make(data: int = -1, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """A mesh with the axes `data`, `fsdp` and `tensor`; an axis of -1 takes the devices left.

    A single process may use fewer devices than there are, and then takes the first ones.

    Raises UserError if the devices do not make such a mesh.
    """
    sizes, devices = [data, fsdp, tensor], jax.device_count()
    named = ", ".join(f"mesh.{axis} {size}" for axis, size in zip(AXES, sizes, strict=True))
    if sizes.count(-1) > 1:
        raise UserError(f"{named}: -1 takes the devices that are left: use it once")
    fixed = math.prod(size for size in sizes if size != -1)
    if -1 in sizes:
        if devices % fixed:
            raise UserError(
                f"{named}: {devices} devices do not divide by {fixed}, the product of the other "
                "axes: change them"
            )
        sizes[sizes.index(-1)] = devices // fixed
    elif fixed > devices:
        raise UserError(
            f"{named} need {fixed} devices, but there are {devices} devices: lower one, or use -1"
        )
    elif fixed < devices and jax.process_count() > 1:
        raise UserError(
            f"{named} need {fixed} devices, but the {jax.process_count()} processes have {devices} "
            "and each must take part: raise one, or use -1"
        )
    return jax.make_mesh(
        tuple(sizes), AXES, (AxisType.Auto,) * 3, devices=jax.devices()[: math.prod(sizes)]
    )


def check_batch(mesh: Mesh, batch_size: int, field: str = "train.batch_size") -> None:
    """Raises UserError if the axes that split a batch do not divide it."""
    size = shares(mesh)
    if batch_size % size:
        raise UserError(
            f"{field} {batch_size} does not divide over mesh.data × mesh.fsdp, {size} devices: "
            f"use a multiple of {size}, such as {-(-batch_size // size) * size}"
        )


def shares(mesh: Mesh) -> int:
    """How many equal parts a batch is split into."""
    return math.prod(mesh.shape[axis] for axis in OVER_BATCH)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharded(mesh: Mesh) -> NamedSharding:
    """The leading axis split over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(OVER_BATCH))


def shardings(mesh: Mesh, tree: Any) -> Any:
    """The sharding of each array of a tree of parameters or of a training state.

    tree: arrays, or shapes as those of `jax.eval_shape`.

    Raises UserError, naming the parameter, if an axis does not divide it.
    """
    return _shardings(mesh, tree, lambda axis: True)


def abstract(mesh: Mesh, tree: Any) -> Any:
    """The tree's shapes, each with its sharding; nothing is computed."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings(mesh, tree),
    )


def gathered(mesh: Mesh, tree: Any) -> Any:
    """Under `jit`: the tree with the shares along `fsdp` put together, for the time of a step.

    Otherwise the compiler may split the work of a product over `fsdp` and move activations, which
    are larger than the parameters.
    """
    whole = _shardings(mesh, tree, lambda axis: axis != "fsdp")
    return jax.lax.with_sharding_constraint(tree, whole)


def initialised(mesh: Mesh, init: Callable[[], Any]) -> Any:
    """The tree that `init` makes. No device ever holds the whole of an array that is split.

    The values are the same on every mesh, up to rounding.
    """
    return jax.jit(init, out_shardings=shardings(mesh, jax.eval_shape(init)))()


def place(mesh: Mesh, tree: Any) -> Any:
    """Copies of the tree's arrays on the mesh; every process must give the same arrays."""

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
    """The rows of a global batch that lie on this process's devices, int64 ascending.

    `place_batch` expects these rows of this process. Processes along `tensor` have the same rows.
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


def _shardings(mesh: Mesh, tree: Any, keeps: Callable[[str], bool]) -> Any:
    """The sharding of each array of a tree, over those axes that `keeps` is true for."""

    def of(path: tuple[Any, ...], node: Any) -> Any:
        axes = node.get_metadata("mesh_axes", None) if isinstance(node, nnx.Variable) else None
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        return jax.tree.map(lambda leaf: _sharding(mesh, name, leaf, axes or (), keeps), node)

    return jax.tree_util.tree_map_with_path(
        of, tree, is_leaf=lambda node: isinstance(node, nnx.Variable)
    )


def _sharding(
    mesh: Mesh, name: str, leaf: Any, axes: Sequence[Axes], keeps: Callable[[str], bool]
) -> NamedSharding:
    # an optimiser may keep less of a matrix than its shape
    if not any(axes) or len(axes) != leaf.ndim:
        return replicated(mesh)
    kept = [_kept(entry, keeps) for entry in axes]
    for size, names in zip(leaf.shape, kept, strict=True):
        over = math.prod(mesh.shape[axis] for axis in names)
        if size % over:
            raise UserError(
                f"{name} of shape {leaf.shape} does not divide over "
                f"{' × '.join(f'mesh.{axis}' for axis in names)}, {over} devices: lower them"
            )
    return NamedSharding(mesh, PartitionSpec(*(names or None for names in kept)))


def _kept(entry: Axes, keeps: Callable[[str], bool]) -> tuple[str, ...]:
    names = (entry,) if isinstance(entry, str) else entry or ()
    return tuple(name for name in names if keeps(name))
