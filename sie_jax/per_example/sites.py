"""Where weights meet data in the jaxpr of one example's loss; all jaxpr reading is in this file."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jex_core

# A call that only names a piece of the computation; a weight that passes into one is followed.
_INLINED = ("jit", "pjit", "closed_call", "core_call")


@dataclasses.dataclass(frozen=True, eq=False)
class Operation:
    """One equation with its variables renamed to integers, unique over the inlined program."""

    equation: jex_core.JaxprEqn
    inputs: tuple[Any, ...]  # an int names a value; anything else is a Literal
    outputs: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.equation.primitive.name

    @property
    def params(self) -> Mapping[str, Any]:
        return self.equation.params


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A flat list of operations: the loss of one example with the calls weights enter inlined."""

    operations: tuple[Operation, ...]
    constants: dict[int, Any]
    inputs: tuple[int, ...]
    outputs: tuple[Any, ...]  # loss first; an int or a Literal each
    shapes: dict[int, jax.ShapeDtypeStruct]


@dataclasses.dataclass(frozen=True, eq=False)
class OuterUse:
    """`dot_general(data, weight)`: the gradient is `aᵀ g`, a the data and g the cotangent.

    `a = transpose(data, data_axes).reshape(T, in)`, `g = transpose(cotangent, out_axes)` likewise;
    `aᵀ g` has the leaf's axes in the order `in_axes + out_axes`, both ascending.
    """

    operation: int
    output: int
    data: int
    data_axes: tuple[int, ...]
    cotangent_axes: tuple[int, ...]
    in_axes: tuple[int, ...]
    out_axes: tuple[int, ...]
    precision: Any

    @property
    def layout(self) -> tuple[Any, ...]:
        """Uses of one leaf with one layout can be joined along T."""
        return ("outer", self.in_axes)

    @property
    def data_key(self) -> tuple[Any, ...]:
        """Equal for uses whose data is the same in standard form."""
        return ("outer", self.data, self.data_axes, len(self.in_axes))


@dataclasses.dataclass(frozen=True, eq=False)
class RowsUse:
    """`gather` of whole rows of the weight: the gradient is the cotangent's rows added at `ids`."""

    operation: int
    output: int
    data: int
    clip: bool

    @property
    def layout(self) -> tuple[Any, ...]:
        return ("rows",)

    @property
    def data_key(self) -> tuple[Any, ...]:
        return ("rows", self.data, self.clip)


Use = OuterUse | RowsUse


@dataclasses.dataclass(frozen=True, eq=False)
class Sites:
    """What the analysis found for each parameter leaf.

    uses[i]: the places where leaf i meets data, in program order, if all of them are of one layout.
    reasons[i]: otherwise, why the leaf's gradient is materialised (the primitives' names).
    """

    program: Program
    uses: tuple[tuple[Use, ...], ...]
    reasons: tuple[tuple[str, ...], ...]


def find(closed: jex_core.ClosedJaxpr, num_leaves: int) -> Sites:
    """Follows the first `num_leaves` inputs of a jaxpr to every place where they are used."""
    program = _flatten(closed, num_leaves)
    uses: list[list[Use]] = [[] for _ in range(num_leaves)]
    reasons: list[list[str]] = [[] for _ in range(num_leaves)]
    # A view is a leaf with its axes permuted: axis k of the view is axis axes[k] of the leaf.
    views: dict[int, tuple[int, tuple[int, ...]]] = {
        name: (leaf, tuple(range(len(program.shapes[name].shape))))
        for leaf, name in enumerate(program.inputs[:num_leaves])
    }
    for index, operation in enumerate(program.operations):
        touched = [views[name] for name in operation.inputs if _is_in(name, views)]
        if not touched:
            continue
        leaf, axes = touched[0]
        if operation.name == "convert_element_type" and jnp.issubdtype(
            operation.params["new_dtype"], jnp.floating
        ):
            views[operation.outputs[0]] = (leaf, axes)
        elif operation.name == "transpose":
            permuted = tuple(axes[axis] for axis in operation.params["permutation"])
            views[operation.outputs[0]] = (leaf, permuted)
        else:
            use = _read_use(program, index, views) if len(touched) == 1 else None
            if use is not None:
                uses[leaf].append(use)
            else:
                for other, _ in touched:
                    reasons[other].append(operation.name)
    if _is_in(program.outputs[0], views):
        reasons[views[program.outputs[0]][0]].append("returned as the loss")
    for leaf in range(num_leaves):
        layouts = {use.layout for use in uses[leaf]}
        if len(layouts) > 1 and not reasons[leaf]:
            names = {program.operations[use.operation].name for use in uses[leaf]}
            reasons[leaf].append(f"tied: {', '.join(sorted(names))}")
        if reasons[leaf]:
            uses[leaf] = []
    return Sites(
        program=program,
        uses=tuple(tuple(of_leaf) for of_leaf in uses),
        reasons=tuple(tuple(dict.fromkeys(of_leaf)) for of_leaf in reasons),
    )


def evaluate(
    program: Program, inputs: Sequence[Any], on_result: Mapping[int, Callable[[Any, Any], Any]]
) -> tuple[list[Any], Callable[[Any], Any]]:
    """Runs the program; `on_result[i](value, read)` replaces the result of operation i.

    Returns the outputs and `read`, which maps a value's name to the value.
    """
    values = dict(program.constants)
    values.update(zip(program.inputs, inputs, strict=True))

    def read(name: Any) -> Any:
        return values[name] if isinstance(name, int) else name.val

    for index, operation in enumerate(program.operations):
        equation = operation.equation
        primitive = equation.primitive
        with equation.ctx.manager:
            result = primitive.bind(
                *map(read, operation.inputs), **primitive.get_bind_params(equation.params)
            )
        if index in on_result:
            result = on_result[index](result, read)
        results = result if primitive.multiple_results else [result]
        values.update(zip(operation.outputs, results, strict=True))
    return [read(name) for name in program.outputs], read


def _is_in(name: Any, names: Mapping[int, Any]) -> bool:
    return isinstance(name, int) and name in names


def _flatten(closed: jex_core.ClosedJaxpr, num_leaves: int) -> Program:
    fresh = itertools.count()
    shapes: dict[int, jax.ShapeDtypeStruct] = {}
    constants: dict[int, Any] = {}
    operations: list[Operation] = []

    def new(variable: Any) -> int:
        name = next(fresh)
        shapes[name] = jax.ShapeDtypeStruct(variable.aval.shape, variable.aval.dtype)
        return name

    def walk(jaxpr: jex_core.Jaxpr, consts: Any, arguments: Sequence[Any], weights: set[int]):
        names: dict[Any, Any] = dict(zip(jaxpr.invars, arguments, strict=True))
        for variable, value in zip(jaxpr.constvars, consts, strict=True):
            names[variable] = new(variable)
            constants[names[variable]] = value

        def name_of(atom: Any) -> Any:
            return atom if isinstance(atom, jex_core.Literal) else names[atom]

        for equation in jaxpr.eqns:
            inputs = tuple(map(name_of, equation.invars))
            weighty = any(isinstance(name, int) and name in weights for name in inputs)
            primitive = equation.primitive.name
            if weighty and primitive in _INLINED:
                inner: Any = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
                outputs = walk(inner.jaxpr, inner.consts, inputs, weights)
                names.update(zip(equation.outvars, outputs, strict=True))
                continue
            outputs = tuple(map(new, equation.outvars))
            names.update(zip(equation.outvars, outputs, strict=True))
            operations.append(Operation(equation, inputs, outputs))
            if weighty and primitive in ("convert_element_type", "transpose"):
                weights.update(outputs)
        return tuple(map(name_of, jaxpr.outvars))

    inputs = tuple(map(new, closed.jaxpr.invars))
    outputs = walk(closed.jaxpr, closed.consts, inputs, set(inputs[:num_leaves]))
    return Program(_live(operations, outputs), constants, inputs, outputs, shapes)


def _live(operations: Sequence[Operation], outputs: Sequence[Any]) -> tuple[Operation, ...]:
    """Drops what no output needs, so that a dead use of a weight costs nothing."""
    needed = {name for name in outputs if isinstance(name, int)}
    kept = []
    for operation in reversed(operations):
        if operation.equation.effects or not needed.isdisjoint(operation.outputs):
            kept.append(operation)
            needed.update(name for name in operation.inputs if isinstance(name, int))
    return tuple(reversed(kept))


def _read_use(
    program: Program, index: int, views: Mapping[int, tuple[int, tuple[int, ...]]]
) -> Use | None:
    operation = program.operations[index]
    if operation.name == "dot_general":
        return _read_outer(program, index, views)
    if operation.name == "gather" and _is_in(operation.inputs[0], views):
        return _read_rows(program, index, views)
    return None


def _read_outer(
    program: Program, index: int, views: Mapping[int, tuple[int, tuple[int, ...]]]
) -> OuterUse | None:
    operation = program.operations[index]
    contracted, batch = operation.params["dimension_numbers"]
    side = 0 if _is_in(operation.inputs[0], views) else 1
    weight, data = operation.inputs[side], operation.inputs[1 - side]
    if batch[0] or not isinstance(data, int):
        return None
    if not jnp.issubdtype(program.shapes[data].dtype, jnp.floating):
        return None
    axes = views[weight][1]
    # Pairs (axis of the leaf, axis of the data), by the leaf's axis: uses of one leaf then agree.
    pairs = sorted(
        (axes[of_weight], of_data)
        for of_weight, of_data in zip(contracted[side], contracted[1 - side], strict=True)
    )
    in_axes = tuple(of_leaf for of_leaf, _ in pairs)
    free_weight = [axis for axis in axes if axis not in in_axes]
    data_rank = len(program.shapes[data].shape)
    free_data = [axis for axis in range(data_rank) if axis not in contracted[1 - side]]
    # dot_general's result has the left operand's free axes first.
    offset = len(free_data) if side == 1 else 0
    places = sorted((of_leaf, offset + place) for place, of_leaf in enumerate(free_weight))
    start = 0 if side == 1 else len(free_weight)
    return OuterUse(
        operation=index,
        output=operation.outputs[0],
        data=data,
        data_axes=(*free_data, *(of_data for _, of_data in pairs)),
        cotangent_axes=(
            *range(start, start + len(free_data)),
            *(place for _, place in places),
        ),
        in_axes=in_axes,
        out_axes=tuple(of_leaf for of_leaf, _ in places),
        precision=operation.params["precision"],
    )


def _read_rows(
    program: Program, index: int, views: Mapping[int, tuple[int, tuple[int, ...]]]
) -> RowsUse | None:
    operation = program.operations[index]
    weight, ids = operation.inputs
    if not isinstance(ids, int) or _is_in(ids, views):
        return None
    shape = program.shapes[weight].shape
    numbers = operation.params["dimension_numbers"]
    result_rank = len(program.shapes[operation.outputs[0]].shape)
    row_rank = len(shape) - 1
    whole_rows = (
        views[weight][1] == tuple(range(len(shape)))
        and tuple(numbers.collapsed_slice_dims) == (0,)
        and tuple(numbers.start_index_map) == (0,)
        and not numbers.operand_batching_dims
        and tuple(operation.params["slice_sizes"]) == (1, *shape[1:])
        and tuple(numbers.offset_dims) == tuple(range(result_rank - row_rank, result_rank))
    )
    if not whole_rows:
        return None
    mode = jax.lax.GatherScatterMode.from_any(operation.params["mode"])
    return RowsUse(
        operation=index,
        output=operation.outputs[0],
        data=ids,
        clip=mode == jax.lax.GatherScatterMode.CLIP,
    )


def data_of(use: Use, value: Any, rows: int) -> Any:
    """The data of a use in standard form: `a [T, in]`, or ids [T] where `rows` means no row."""
    if isinstance(use, OuterUse):
        num_in = len(use.in_axes)
        moved = jnp.transpose(value, use.data_axes)
        split = moved.ndim - num_in
        return moved.reshape(math.prod(moved.shape[:split]), math.prod(moved.shape[split:]))
    ids = value.reshape(-1)
    if ids.dtype.itemsize < 4:  # `rows` must be representable
        ids = ids.astype(jnp.int32)
    if use.clip:
        return jnp.clip(ids, 0, rows - 1)
    # Out of range, the gradient is dropped, in FILL_OR_DROP and PROMISE_IN_BOUNDS alike.
    return jnp.where((ids >= 0) & (ids < rows), ids, rows)


def cotangent_of(use: Use, cotangent: Any, row_size: int) -> Any:
    """The cotangent of a use's result in standard form: g [T, out]."""
    if isinstance(use, OuterUse):
        cotangent = jnp.transpose(cotangent, use.cotangent_axes)
    return cotangent.reshape(-1, row_size)
