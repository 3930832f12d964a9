"""One call's arguments, checked and traced for one example; which data to keep and where to tap."""

import collections
import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from sie_jax.per_example import sites
from sie_jax.per_example.gradients import Leaf, Part

# Above this, gradients that are materialised for one leaf are warned of.
LARGE_BYTES = 1 << 26


class Call:
    """One call's arguments, checked and flattened, with the function of one example traced.

    results: takes apart what the function returns, into what is differentiated and what is not, in
    the function's own order; and refuses what it cannot use.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: Mapping[str, Any],
        argnums: int | Sequence[int],
        in_axes: Any,
        results: Callable[[Any], tuple[Any, Any]],
    ):
        chosen = [argnums] if isinstance(argnums, int) else list(argnums)
        if not all(-len(arguments) <= number < len(arguments) for number in chosen):
            raise ValueError(
                f"argnums is {argnums}, but there are {len(arguments)} arguments: give numbers "
                f"below {len(arguments)}"
            )
        chosen = [number % len(arguments) for number in chosen]
        if len(set(chosen)) != len(chosen) or not chosen:
            raise ValueError(f"argnums is {argnums}: name at least one argument, each of them once")
        params = (
            arguments[chosen[0]]
            if isinstance(argnums, int)
            else tuple(arguments[number] for number in chosen)
        )
        given = tuple(value for place, value in enumerate(arguments) if place not in chosen)
        batch = given, dict(keywords)
        self.treedef: Any = jax.tree.structure(params)
        self.leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(params)]
        self._paths = []
        for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
            self._paths.append(jax.tree_util.keystr(path))
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                raise ValueError(
                    f"params{self._paths[-1]} is {jnp.result_type(leaf)}; pass floating parameters "
                    "only and close over the rest; Flax NNX splits them off by "
                    "nnx.split(model, nnx.Param, ...)"
                )
        values = jax.tree.leaves(batch)
        batch_tree: Any = jax.tree.structure(batch)
        # as in jax.vmap, in_axes is of what has a place, and keywords have the batch axis first
        axes = [*_flat_axes(in_axes, given), *(0 for _ in jax.tree.leaves(batch[1]))]
        try:
            sizes = {jnp.shape(v)[a] for v, a in zip(values, axes, strict=True) if a is not None}
        except IndexError:
            raise ValueError(
                "a batch argument lacks the batch axis; give it None in in_axes to pass it whole"
            ) from None
        if len(sizes) != 1:
            raise ValueError(
                f"batch arguments must share one batch size; found sizes {sorted(sizes)}: give "
                "every argument in_axes points at the same length"
            )
        self.batch_size: int = sizes.pop()
        self._axes = axes
        self.mapped = [
            jnp.moveaxis(v, axis, 0)
            for v, axis in zip(values, axes, strict=True)
            if axis is not None
        ]
        self._whole = [v for v, axis in zip(values, axes, strict=True) if axis is None]

        def flat(leaves, mapped, whole):
            one_given, named = batch_tree.unflatten(self._merge(mapped, whole))
            example = iter(one_given)
            tree = self.treedef.unflatten(leaves)
            trees = dict(zip(chosen, [tree] if isinstance(argnums, int) else tree, strict=True))
            places = range(len(arguments))
            return function(*(trees[n] if n in trees else next(example) for n in places), **named)

        one = [jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for v in self.mapped]
        closed, result = jax.make_jaxpr(flat, return_shape=True)(self.leaves, one, self._whole)
        differentiated, aux = results(result)
        self.result_tree: Any = jax.tree.structure(differentiated)
        self.aux_tree: Any = jax.tree.structure(aux)
        num_results = len(jax.tree.leaves(differentiated))
        self.sites = sites.find(closed, len(self.leaves), num_results)

    def run(
        self,
        mapped: Sequence[Any],
        layout: "Layout",
        taps: Sequence[Array],
        dense: Sequence[Array],
        probes: Mapping[int, sites.Hook] | None = None,
    ) -> tuple[list[Any], dict[int, Any]]:
        """The outputs of the program on one example, flat, and the data captured by slot.

        `dense` are the leaves that take plain AD, differentiated; `taps` are added where the
        layout says.
        """
        leaves = list(self.leaves)
        for index, value in zip(layout.dense, dense, strict=True):
            leaves[index] = value
        inputs = [*leaves, *mapped, *self._whole]
        hooks = {**layout.hooks(), **(probes or {})}
        return sites.evaluate(self.sites.program, inputs, hooks, layout.by_name(taps))

    def warn_of_large(self, layout: "Layout") -> None:
        """Says which materialised gradients are large, and why they are."""
        for path, leaf in zip(self._paths, layout.leaves, strict=True):
            size = self.batch_size * math.prod(leaf.shape) * leaf.dtype.itemsize
            if leaf.dense is not None and size > LARGE_BYTES:
                warnings.warn(
                    f"params{path}: the gradients of all {self.batch_size} examples are "
                    f"materialised, {size >> 20} MiB, because of {', '.join(leaf.reasons)}; "
                    "per_example.explain has the whole table",
                    stacklevel=3,
                )

    def _merge(self, mapped: Sequence[Any], whole: Sequence[Any]) -> list[Any]:
        mapped_values, whole_values = iter(mapped), iter(whole)
        return [next(whole_values) if axis is None else next(mapped_values) for axis in self._axes]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Slots: which data to capture, where to tap, which leaves take plain AD; and all leaves."""

    data: list[sites.Use]
    taps: list[tuple[sites.Use, int]]
    dense: list[int]
    leaves: tuple[Leaf, ...]

    def hooks(self) -> dict[int, sites.Hook]:
        """Adds each tap to its result, and captures data where they first meet a weight."""
        captured = {use.output: slot for slot, use in enumerate(self.data)}

        def hook(use: sites.Use) -> sites.Hook:
            slot = captured.get(use.output)

            def tapped(value: Any, read: Callable[[Any], Any], tap: Any):
                found = {} if slot is None else {slot: sites.data_of(use, read(use.data))}
                return value + tap, found

            return tapped

        return {use.output: hook(use) for use, _ in self.taps}

    def by_name(self, taps: Sequence[Array]) -> dict[int, Array]:
        return {use.output: tap for (use, _), tap in zip(self.taps, taps, strict=True)}

    def zeros(self, program: sites.Program) -> list[Array]:
        """A tap of zeros for each place: one of the result's shape for every step of the scans."""
        found = []
        for use, _ in self.taps:
            steps = tuple(level.length for level in use.levels)
            result = program.shapes[use.output]
            found.append(jnp.zeros(steps + result.shape, result.dtype))
        return found

    def standard_data(self, captured: Mapping[int, Any]) -> list[Any]:
        """One example's data, by slot, in standard form."""
        return [sites.merged(use, captured[slot]) for slot, use in enumerate(self.data)]

    def standard_cotangents(self, cotangents: Sequence[Any]) -> list[Any]:
        """One example's cotangents of the taps in standard form."""
        return [
            sites.merged(use, sites.cotangent_of(use, cotangent, size))
            for cotangent, (use, size) in zip(cotangents, self.taps, strict=True)
        ]


def lay_out(found: sites.Sites, leaves: Sequence[Array], skip: set[int] | None = None) -> Layout:
    """Assigns slots; leaves of one data share its slot. `skip`: leaves that need none."""
    slots: dict[Any, int] = {}
    layout = Layout([], [], [], ())
    described: list[Leaf] = []
    for index, (leaf, uses) in enumerate(zip(leaves, found.uses, strict=True)):
        shape, dtype = tuple(leaf.shape), jnp.dtype(leaf.dtype)
        if found.reasons[index]:
            slot = len(layout.dense)
            described.append(Leaf(shape, dtype, dense=slot, reasons=found.reasons[index]))
            layout.dense.append(index)
            continue
        if not uses or not leaf.size or (skip and index in skip):
            described.append(Leaf(shape, dtype))
            continue
        stack = sites.stack_axes(uses[0])
        parts = []
        for kind, of in (("outer", sites.OuterUse), ("rows", sites.RowsUse)):
            mine = [use for use in uses if isinstance(use, of)]
            if not mine:
                continue
            data, taps = [], []
            for use in mine:
                if use.data_key not in slots:
                    slots[use.data_key] = len(layout.data)
                    layout.data.append(use)
                data.append(slots[use.data_key])
                taps.append(len(layout.taps))
                layout.taps.append((use, row_size(use, shape)))
            axes = inner_axes(mine[0], shape)
            precision = mine[0].precision if isinstance(mine[0], sites.OuterUse) else None
            parts.append(Part(kind, tuple(data), tuple(taps), *axes, precision))
        described.append(Leaf(shape, dtype, tuple(parts), stack_axes=stack))
    sharing = collections.Counter(
        part.data for leaf in described for part in leaf.parts if part.kind == "outer"
    )
    shared = tuple(
        dataclasses.replace(
            leaf,
            parts=tuple(
                dataclasses.replace(part, shared=sharing.get(part.data, 1)) for part in leaf.parts
            ),
        )
        for leaf in described
    )
    return dataclasses.replace(layout, leaves=shared)


def loss_and_aux(result: Any, has_aux: bool, what: str) -> tuple[Any, Any]:
    """What a loss returned, once it is one floating scalar (and aux); `what` says that it must."""
    loss, aux = result if has_aux else (result, ())
    if getattr(loss, "shape", None) != () or not jnp.issubdtype(loss.dtype, jnp.floating):
        raise ValueError(f"{what} (and aux with has_aux=True); it returned {loss}")
    return loss, aux


def inner_axes(use: sites.Use, shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """in_axes and out_axes, counted without the axes that scans take apart."""
    if not isinstance(use, sites.OuterUse):
        return (), ()
    left = [axis for axis in range(len(shape)) if axis not in sites.stack_axes(use)]
    place = {axis: position for position, axis in enumerate(left)}
    return tuple(place[a] for a in use.in_axes), tuple(place[a] for a in use.out_axes)


def row_size(use: sites.Use, shape: Sequence[int]) -> int:
    if isinstance(use, sites.OuterUse):
        return math.prod(shape[axis] for axis in use.out_axes)
    rest = [n for axis, n in enumerate(shape) if axis not in sites.stack_axes(use)]
    return math.prod(rest[1:])


_WHOLE = object()


def _flat_axes(in_axes: Any, batch: tuple[Any, ...]) -> list[int | None]:
    if isinstance(in_axes, list):
        in_axes = tuple(in_axes)
    # A None among in_axes is an axis; a None in the batch (Equinox leaves them) is an empty tree.
    marked = jax.tree.map(
        lambda axis: _WHOLE if axis is None else axis, in_axes, is_leaf=lambda axis: axis is None
    )
    try:
        axes = jax.tree.leaves(jax.tree.broadcast(marked, batch))
    except ValueError:
        raise ValueError(
            f"in_axes {in_axes} does not match {len(batch)} batch arguments; give an int, None or "
            "a tuple with one entry for each argument after params"
        ) from None
    return [None if axis is _WHOLE else axis for axis in axes]
