"""Where weights meet data in the jaxpr of one example's loss; all jaxpr reading is in this file."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jex_core

# A call that only names a piece of the computation; a weight that passes into one is followed.
_INLINED = ("jit", "pjit", "closed_call", "core_call")
# Calls that are followed and emitted again, so that taps can go in and data come out.
_SCAN, _CHECKPOINT = ("scan",), ("checkpoint", "remat", "remat2")
# What leaves a weight the weight that it was.
_UNCHANGED = ("copy", "copy_p", "sharding_constraint")


@dataclasses.dataclass(frozen=True, eq=False)
class Operation:
    """One equation with its variables renamed to integers, unique over the whole program.

    body: what a scan or a checkpoint repeats, if a weight enters it.
    """

    equation: jex_core.JaxprEqn
    inputs: tuple[Any, ...]  # an int names a value; anything else is a Literal
    outputs: tuple[int, ...]
    body: "Program | None" = None

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
    outputs: tuple[Any, ...]  # what is differentiated first; an int or a Literal each
    shapes: dict[int, jax.ShapeDtypeStruct]

    def results(self) -> Iterator[int]:
        """The names of everything that is computed, in bodies too."""
        for operation in self.operations:
            yield from operation.outputs
            if operation.body is not None:
                yield from operation.body.results()


@dataclasses.dataclass(frozen=True)
class Level:
    """A scan around the place where a weight meets data.

    stack_axis: the leaf's axis of which every step takes one entry; None where every step takes
    the same weight, and the steps are but more places where it meets data.
    """

    length: int
    stack_axis: int | None


@dataclasses.dataclass(frozen=True)
class View:
    """A leaf as one place of the program sees it: axis k of the view is axis axes[k] of the leaf.

    levels: the scans it has entered, outermost first.
    """

    leaf: int
    axes: tuple[int, ...]
    levels: tuple[Level, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class OuterUse:
    """`dot_general(data, weight)`: the gradient is `aᵀ g`, a the data and g the cotangent.

    `a = transpose(data, data_axes).reshape(T, in)`, `g = transpose(cotangent, out_axes)` likewise;
    `aᵀ g` has the leaf's axes in the order `in_axes + out_axes`, both ascending.
    """

    output: int
    data: int
    levels: tuple[Level, ...]
    data_axes: tuple[int, ...]
    cotangent_axes: tuple[int, ...]
    in_axes: tuple[int, ...]
    out_axes: tuple[int, ...]
    precision: Any

    @property
    def layout(self) -> tuple[Any, ...]:
        """Uses of one leaf with one layout can be joined along T."""
        return ("outer", stack_axes(self), self.in_axes)

    @property
    def data_key(self) -> tuple[Any, ...]:
        """Equal for uses whose data is the same in standard form."""
        return ("outer", self.data, self.levels, self.data_axes, len(self.in_axes))


@dataclasses.dataclass(frozen=True, eq=False)
class RowsUse:
    """`gather` of whole rows of the weight: the gradient is the cotangent's rows added at `ids`."""

    output: int
    data: int
    levels: tuple[Level, ...]
    clip: bool
    rows: int

    @property
    def layout(self) -> tuple[Any, ...]:
        return ("rows", stack_axes(self))

    @property
    def data_key(self) -> tuple[Any, ...]:
        return ("rows", self.data, self.levels, self.clip, self.rows)


Use = OuterUse | RowsUse


def stack_axes(use: Use) -> tuple[int, ...]:
    """The leaf's axes that scans take apart, ascending."""
    return tuple(sorted(level.stack_axis for level in use.levels if level.stack_axis is not None))


@dataclasses.dataclass(frozen=True, eq=False)
class Sites:
    """What the analysis found for each parameter leaf.

    uses[i]: the places where leaf i meets data, in program order: of one layout, or one layout of
    products and one of look-ups of the same rows (a tied table).
    reasons[i]: otherwise, why the leaf's gradient is materialised (the primitives' names).
    axes: the named axes around the program that its collectives read along.
    """

    program: Program
    uses: tuple[tuple[Use, ...], ...]
    reasons: tuple[tuple[str, ...], ...]
    axes: tuple[str, ...]


def find(closed: jex_core.ClosedJaxpr, num_leaves: int, num_results: int = 1) -> Sites:
    """Follows the first `num_leaves` inputs of a jaxpr to every place where they are used.

    num_results: how many of its outputs, the first ones, are differentiated.
    """
    program = _flatten(closed, num_leaves)
    uses: list[list[Use]] = [[] for _ in range(num_leaves)]
    reasons: list[list[str]] = [[] for _ in range(num_leaves)]
    views = {
        name: View(leaf, tuple(range(len(program.shapes[name].shape))))
        for leaf, name in enumerate(program.inputs[:num_leaves])
    }
    _follow(program, views, uses, reasons)
    for name in program.outputs[:num_results]:
        if _is_in(name, views):
            reasons[views[name].leaf].append("returned")
    for leaf in range(num_leaves):
        if not reasons[leaf] and not _joinable(uses[leaf]):
            layouts = sorted(
                str(use.layout[0]) for use in {u.layout: u for u in uses[leaf]}.values()
            )
            reasons[leaf].append(f"used in ways that do not join: {', '.join(layouts)}")
        if reasons[leaf]:
            uses[leaf] = []
    return Sites(
        program=program,
        uses=tuple(tuple(of_leaf) for of_leaf in uses),
        reasons=tuple(tuple(dict.fromkeys(of_leaf)) for of_leaf in reasons),
        # a class that JAX does not export
        axes=tuple(
            str(getattr(effect, "name", effect))
            for effect in closed.effects
            if type(effect).__name__ == "NamedAxisEffect"
        ),
    )


def _joinable(uses: Sequence[Use]) -> bool:
    """Whether all uses are of one layout, or products and look-ups agree on what a row is."""
    layouts = {use.layout for use in uses}
    if len(layouts) < 2:
        return True
    products = [use for use in uses if isinstance(use, OuterUse)]
    stacks = {stack_axes(use) for use in uses}
    if len(layouts) > 2 or not products or len(products) == len(uses) or len(stacks) > 1:
        return False
    first = products[0]
    row_axis = min(first.in_axes + first.out_axes)
    return (row_axis,) in (first.in_axes, first.out_axes)


def _follow(
    program: Program,
    views: dict[int, View],
    uses: list[list[Use]],
    reasons: list[list[str]],
) -> None:
    """Adds every use of the weights in `views`, which grows by the views made on the way."""
    for operation in program.operations:
        touched = [views[name] for name in operation.inputs if _is_in(name, views)]
        if not touched:
            continue
        view = touched[0]
        if operation.name in _UNCHANGED or (
            operation.name == "convert_element_type"
            and jnp.issubdtype(operation.params["new_dtype"], jnp.floating)
        ):
            views[operation.outputs[0]] = view
        elif operation.name == "transpose":
            permuted = tuple(view.axes[axis] for axis in operation.params["permutation"])
            views[operation.outputs[0]] = dataclasses.replace(view, axes=permuted)
        elif operation.body is not None:
            inside: dict[int, View] = {}
            entries = zip(
                operation.inputs, operation.body.inputs, _entrances(operation), strict=True
            )
            for outer, inner, entrance in entries:
                if not _is_in(outer, views):
                    continue
                entered = _enter(views[outer], entrance, operation)
                if entered is None:
                    reasons[views[outer].leaf].append(f"{operation.name} (carry)")
                elif operation.params.get("length") != 0:  # no step, no use
                    inside[inner] = entered
            _follow(operation.body, inside, uses, reasons)
            for name in operation.body.outputs:
                if _is_in(name, inside):
                    reasons[inside[name].leaf].append(f"returned by {operation.name}")
        else:
            use = _read_use(program, operation, views) if len(touched) == 1 else None
            if use is not None:
                uses[view.leaf].append(use)
            else:
                for other in touched:
                    reasons[other.leaf].append(operation.name)


def _entrances(operation: Operation) -> list[str]:
    """How each input enters a body: whole ("constant"), step by step ("slice") or as "carry"."""
    if operation.name in _CHECKPOINT:
        return ["constant"] * len(operation.inputs)
    carries, slices = _scan_counts(operation.equation)
    constants = len(operation.inputs) - carries - slices
    return ["constant"] * constants + ["carry"] * carries + ["slice"] * slices


def _scan_counts(equation: jex_core.JaxprEqn) -> tuple[int, int]:
    """The numbers of carries and of sliced inputs.

    By the shapes, which say it under every version of JAX: what is sliced has one axis more
    outside than inside, and of the results all but the carries are stacked.
    """
    inner = equation.params["jaxpr"].jaxpr
    carries = sum(
        _rank(outside) == _rank(inside)
        for outside, inside in zip(equation.outvars, inner.outvars, strict=True)
    )
    slices = sum(
        _rank(outside) != _rank(inside)
        for outside, inside in zip(equation.invars, inner.invars, strict=True)
    )
    return carries, slices


def _rank(atom: Any) -> int:
    return len(atom.aval.shape)


def _enter(view: View, entrance: str, operation: Operation) -> View | None:
    if operation.name in _CHECKPOINT:
        return view
    length = operation.params["length"]
    if entrance == "slice":
        level = Level(length, view.axes[0])
        return View(view.leaf, view.axes[1:], (*view.levels, level))
    if entrance == "constant":
        return View(view.leaf, view.axes, (*view.levels, Level(length, None)))
    return None


# What is done at one result: (value, read, tap) -> (value to go on with, captured by slot).
Hook = Callable[[Any, Callable[[Any], Any], Any], tuple[Any, dict[int, Any]]]


def evaluate(
    program: Program, inputs: Sequence[Any], hooks: Mapping[int, Hook], taps: Mapping[int, Any]
) -> tuple[list[Any], dict[int, Any]]:
    """Runs the program; `hooks[n]` replaces the result of name n, and may capture values.

    A hook inside scans gets its tap and what it captures step by step: `taps[n]` and the captured
    values have one leading axis for every scan, outermost first.

    Returns the outputs, and the captured values by slot.
    """
    values = dict(program.constants)
    values.update(zip(program.inputs, inputs, strict=True))
    captured: dict[int, Any] = {}

    def read(name: Any) -> Any:
        return values[name] if isinstance(name, int) else name.val

    for operation in program.operations:
        equation, body = operation.equation, operation.body
        primitive = equation.primitive
        arguments = list(map(read, operation.inputs))
        with equation.ctx.manager:
            if body is not None and not hooks.keys().isdisjoint(body.results()):
                repeat = _checkpoint if operation.name in _CHECKPOINT else _scan
                results, inside = repeat(operation, body, arguments, hooks, taps)
                captured |= inside
            else:
                result = primitive.bind(*arguments, **primitive.get_bind_params(equation.params))
                results = result if primitive.multiple_results else [result]
        for place, name in enumerate(operation.outputs):
            value = results[place]
            if name in hooks:
                value, found = hooks[name](value, read, taps.get(name))
                captured |= found
            values[name] = value
    return [read(name) for name in program.outputs], captured


def _checkpoint(
    operation: Operation,
    body: Program,
    arguments: Sequence[Any],
    hooks: Mapping[int, Hook],
    taps: Mapping[int, Any],
) -> tuple[list[Any], dict[int, Any]]:
    """The checkpoint again, with the captured values as further results."""
    params = operation.params
    again = jax.checkpoint(
        lambda *inputs: evaluate(body, inputs, hooks, taps),
        prevent_cse=params["prevent_cse"],
        policy=params["policy"],
    )
    return again(*arguments)


def _scan(
    operation: Operation,
    body: Program,
    arguments: Sequence[Any],
    hooks: Mapping[int, Hook],
    taps: Mapping[int, Any],
) -> tuple[list[Any], dict[int, Any]]:
    """The scan again, with the taps as further inputs and the captured values as results."""
    carries, slices = _scan_counts(operation.equation)
    first_slice = len(arguments) - slices
    constants = arguments[: first_slice - carries]
    inside = {name: taps[name] for name in body.results() if name in taps}

    def step(carry: list[Any], sliced: tuple[list[Any], dict[int, Any]]):
        values, tapped = sliced
        outputs, captured = evaluate(body, [*constants, *carry, *values], hooks, tapped)
        return outputs[:carries], (outputs[carries:], captured)

    carry, (stacked, captured) = jax.lax.scan(
        step,
        list(arguments[first_slice - carries : first_slice]),
        (list(arguments[first_slice:]), inside),
        length=operation.params["length"],
        reverse=operation.params["reverse"],
        unroll=operation.params["unroll"],
    )
    return [*carry, *stacked], captured


def _is_in(name: Any, names: Mapping[int, Any]) -> bool:
    return isinstance(name, int) and name in names


def _flatten(closed: jex_core.ClosedJaxpr, num_leaves: int) -> Program:
    fresh = itertools.count()
    shapes: dict[int, jax.ShapeDtypeStruct] = {}

    def new(variable: Any) -> int:
        name = next(fresh)
        shapes[name] = jax.ShapeDtypeStruct(variable.aval.shape, variable.aval.dtype)
        return name

    def program_of(jaxpr: jex_core.Jaxpr, consts: Any, weighty: Sequence[bool]) -> Program:
        operations: list[Operation] = []
        constants: dict[int, Any] = {}

        def walk(jaxpr: jex_core.Jaxpr, consts: Any, arguments: Sequence[Any]):
            names: dict[Any, Any] = dict(zip(jaxpr.invars, arguments, strict=True))
            for variable, value in zip(jaxpr.constvars, consts, strict=True):
                names[variable] = new(variable)
                constants[names[variable]] = value

            def name_of(atom: Any) -> Any:
                return atom if isinstance(atom, jex_core.Literal) else names[atom]

            for equation in jaxpr.eqns:
                inputs = tuple(map(name_of, equation.invars))
                of_weights = [isinstance(name, int) and name in weights for name in inputs]
                primitive = equation.primitive.name
                inner: Any = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
                if any(of_weights) and primitive in _INLINED:
                    outputs = walk(inner.jaxpr, inner.consts, inputs)
                    names.update(zip(equation.outvars, outputs, strict=True))
                    continue
                body = None
                if any(of_weights) and primitive in _SCAN:
                    body = program_of(inner.jaxpr, inner.consts, of_weights)
                elif any(of_weights) and primitive in _CHECKPOINT:
                    body = program_of(inner, (), of_weights)
                outputs = tuple(map(new, equation.outvars))
                names.update(zip(equation.outvars, outputs, strict=True))
                operations.append(Operation(equation, inputs, outputs, body))
                if any(of_weights) and primitive in (
                    "convert_element_type",
                    "transpose",
                    *_UNCHANGED,
                ):
                    weights.update(outputs)
            return tuple(map(name_of, jaxpr.outvars))

        inputs = tuple(map(new, jaxpr.invars))
        weights = {name for name, is_weight in zip(inputs, weighty, strict=True) if is_weight}
        outputs = walk(jaxpr, consts, inputs)
        return Program(_live(operations, outputs), constants, inputs, outputs, shapes)

    weighty = [place < num_leaves for place in range(len(closed.jaxpr.invars))]
    return program_of(closed.jaxpr, closed.consts, weighty)


def _live(operations: Sequence[Operation], outputs: Sequence[Any]) -> tuple[Operation, ...]:
    """Drops what no output needs, so that a dead use of a weight costs nothing."""
    needed = {name for name in outputs if isinstance(name, int)}
    kept = []
    for operation in reversed(operations):
        if operation.equation.effects or not needed.isdisjoint(operation.outputs):
            kept.append(operation)
            needed.update(name for name in operation.inputs if isinstance(name, int))
    return tuple(reversed(kept))


def _read_use(program: Program, operation: Operation, views: Mapping[int, View]) -> Use | None:
    if operation.name == "dot_general":
        return _read_outer(program, operation, views)
    if operation.name == "gather" and _is_in(operation.inputs[0], views):
        return _read_rows(program, operation, views)
    return None


def _read_outer(
    program: Program, operation: Operation, views: Mapping[int, View]
) -> OuterUse | None:
    contracted, batch = operation.params["dimension_numbers"]
    side = 0 if _is_in(operation.inputs[0], views) else 1
    weight, data = operation.inputs[side], operation.inputs[1 - side]
    if batch[0] or not isinstance(data, int):
        return None
    if not jnp.issubdtype(program.shapes[data].dtype, jnp.floating):
        return None
    axes = views[weight].axes
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
        output=operation.outputs[0],
        data=data,
        levels=views[weight].levels,
        data_axes=(*free_data, *(of_data for _, of_data in pairs)),
        cotangent_axes=(
            *range(start, start + len(free_data)),
            *(place for _, place in places),
        ),
        in_axes=in_axes,
        out_axes=tuple(of_leaf for of_leaf, _ in places),
        precision=operation.params["precision"],
    )


def _read_rows(program: Program, operation: Operation, views: Mapping[int, View]) -> RowsUse | None:
    weight, ids = operation.inputs
    if not isinstance(ids, int) or _is_in(ids, views):
        return None
    shape = program.shapes[weight].shape
    numbers = operation.params["dimension_numbers"]
    result_rank = len(program.shapes[operation.outputs[0]].shape)
    row_rank = len(shape) - 1
    whole_rows = (
        views[weight].axes == tuple(sorted(views[weight].axes))
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
        output=operation.outputs[0],
        data=ids,
        levels=views[weight].levels,
        clip=mode == jax.lax.GatherScatterMode.CLIP,
        rows=shape[0],
    )


def data_of(use: Use, value: Any) -> Any:
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
        return jnp.clip(ids, 0, use.rows - 1)
    # Out of range, the gradient is dropped, in FILL_OR_DROP and PROMISE_IN_BOUNDS alike.
    return jnp.where((ids >= 0) & (ids < use.rows), ids, use.rows)


def cotangent_of(use: Use, cotangent: Any, row_size: int) -> Any:
    """The cotangent of a use's result in standard form: g [T, out], after one axis a scan."""
    scans = len(use.levels)
    if isinstance(use, OuterUse):
        kept = tuple(range(scans))
        moved = tuple(scans + axis for axis in use.cotangent_axes)
        cotangent = jnp.transpose(cotangent, kept + moved)
    return cotangent.reshape(*cotangent.shape[:scans], -1, row_size)


def merged(use: Use, value: Any) -> Any:
    """[steps of each scan, T, ...] as [L, T, ...], or [T, ...] where no scan takes the leaf apart.

    L merges the stack axes in the leaf's order; steps that share a weight become part of T.
    """
    places = range(len(use.levels))
    stacks = [(use.levels[p].stack_axis, p) for p in places if use.levels[p].stack_axis is not None]
    first = [p for _, p in sorted(stacks)]
    order = first + [p for p in places if p not in first]
    moved = jnp.transpose(value, (*order, *range(len(use.levels), value.ndim)))
    depth = math.prod(moved.shape[: len(first)])
    rest = moved.shape[len(use.levels) + 1 :]
    leading = (depth,) if first else ()
    tokens = math.prod(moved.shape[len(first) : len(use.levels) + 1])
    return moved.reshape(*leading, tokens, *rest)
