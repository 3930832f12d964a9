"""Per-example gradients of a loss: taps go in where weights meet data, forms come out."""

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
from sie_jax.per_example.forms import Form, Outer, Rows, clamped
from sie_jax.per_example.gradients import Leaf, Part, PerExampleGrads, total_of

# Above this, gradients that are materialised for one leaf are warned of.
LARGE_BYTES = 1 << 26


def value_and_grad(
    loss_fn: Callable[..., Any],
    *,
    argnums: int | Sequence[int] = 0,
    in_axes: Any = 0,
    has_aux: bool = False,
) -> Callable[..., Any]:
    """Losses and exact per-example gradients, from one forward and one backward pass.

    Args:
      loss_fn: `(params, *example) -> scalar`, or `(scalar, aux)` where `has_aux`. It sees ONE
        example. Params is any pytree of floating arrays (a dict, a Flax NNX State, …).
      argnums: which arguments of `loss_fn` are params, as in `jax.grad`: with several, "like
        params" means a tuple of trees.
      in_axes: as in `jax.vmap`, for the other arguments only, in their order; None passes an
        argument whole to every example.
      has_aux: whether `loss_fn` returns auxiliary data beside the loss.

    Returns:
      `(params, *batch) -> (losses [B], PerExampleGrads)`, or `((losses, aux), PerExampleGrads)`
      with every leaf of aux batched. It takes its arguments as `loss_fn` does.

    Exact whatever the loss does: a weight that meets data in a matrix product or a table look-up
    is kept as factors, also inside `jit`, `scan` and `checkpoint`; every other use takes plain AD
    for that leaf, with a warning where that is large. A loss that couples examples (in-batch
    negatives, batch norm) has no gradient of this kind: make the group the example.

    Memory: the factors are what plain backprop keeps of an unrolled model. Inside `checkpoint`,
    they are kept all the same, which undoes what it saves: take `grad_norms`, and then one plain
    backward pass of the weighted loss, where memory is short.

    Raises:
      ValueError: a parameter that is not floating, a loss that is not a scalar, or batch arguments
        that disagree on B.
    """

    def wrapped(*arguments: Any):
        call = _Call(loss_fn, arguments, argnums, has_aux, in_axes)
        layout = _lay_out(call.sites, call.leaves)
        call.warn_of_large(layout)

        def one(taps: list[Array], dense: list[Array], mapped: list[Any]):
            outputs, captured = call.run(mapped, layout, taps, dense)
            return outputs[0], (outputs[1:], layout.standard_data(captured))

        gradient = jax.value_and_grad(one, argnums=(0, 1), has_aux=True)
        mapped = jax.vmap(gradient, in_axes=(None, None, 0))(
            layout.zeros(call.sites.program),
            [call.leaves[index] for index in layout.dense],
            call.mapped,
        )
        (losses, (aux, data)), (cotangents, dense) = mapped
        standardise = jax.vmap(layout.standard_cotangents, axis_size=call.batch_size)
        standard = standardise(cotangents)
        grads = PerExampleGrads(
            tuple(data), tuple(standard), tuple(dense), call.batch_size, layout.leaves, call.treedef
        )
        return ((losses, call.aux_tree.unflatten(aux)) if has_aux else losses), grads

    return wrapped


def grad_norms(
    loss_fn: Callable[..., Any],
    *,
    argnums: int | Sequence[int] = 0,
    in_axes: Any = 0,
    has_aux: bool = False,
    chunk_size: int | None = None,
    per_leaf: bool = False,
) -> Callable[..., Any]:
    """‖∇ℓ_i‖ alone, exact, without keeping any factor.

    Each place where a weight meets data returns its squared norm from the backward pass, so no
    factor outlives its layer, except for weights with several such places (a recurrent cell, a tied
    table), whose norm has cross terms. How much memory that leaves in use is the compiler's choice
    (benchmarks/results/step.json has it for BERT); `chunk_size` bounds it.

    Args:
      loss_fn, argnums, in_axes, has_aux: as in `value_and_grad`.
      chunk_size: examples handled at a time, one chunk after the other; any size, the last chunk
        may be smaller. None takes the whole batch at once.
      per_leaf: give a tree like params of [B] norms, one for each leaf, in place of [B].

    Returns:
      `(params, *batch) -> norms [B]`, or `(norms, aux)`; equal to `PerExampleGrads.norms()` up to
      rounding.

    Raises:
      ValueError: as `value_and_grad`, or a chunk_size below 1.
    """
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"grad_norms: chunk_size is {chunk_size}; pass a positive number or None")

    def wrapped(*arguments: Any):
        call = _Call(loss_fn, arguments, argnums, has_aux, in_axes)
        # A weight that meets data twice has a norm with cross terms: its factors meet first.
        once = {
            leaf
            for leaf, uses in enumerate(call.sites.uses)
            if len(uses) == 1
            and call.leaves[leaf].size
            and all(level.stack_axis is not None for level in uses[0].levels)
        }
        layout = _lay_out(call.sites, call.leaves, skip=once)
        call.warn_of_large(layout)
        probed = [(call.sites.uses[leaf][0], call.leaves[leaf]) for leaf in sorted(once)]

        def one(mapped: list[Any]):
            def loss(taps: list[Array], dense: list[Array], dummies: list[Array]):
                probes = {
                    use.output: _probe(use, weight, dummy)
                    for (use, weight), dummy in zip(probed, dummies, strict=True)
                }
                outputs, captured = call.run(mapped, layout, taps, dense, probes)
                return outputs[0], (outputs[1:], layout.standard_data(captured))

            dummies = [jnp.zeros((), jnp.promote_types(w.dtype, jnp.float32)) for _, w in probed]
            (cotangents, dense, squares), (aux, data) = jax.grad(
                loss, argnums=(0, 1, 2), has_aux=True
            )(
                layout.zeros(call.sites.program),
                [call.leaves[index] for index in layout.dense],
                dummies,
            )
            kept = PerExampleGrads(
                tuple(values[None] for values in data),
                tuple(values[None] for values in layout.standard_cotangents(cotangents)),
                tuple(values[None] for values in dense),
                1,
                tuple(leaf for index, leaf in enumerate(layout.leaves) if index not in once),
                None,
            )
            rest = [form.squared_norms({})[0] for form in kept.forms()]
            others = [leaf for leaf in range(len(layout.leaves)) if leaf not in once]
            by_leaf = dict(zip(sorted(once) + others, squares + rest, strict=True))
            each = [clamped(by_leaf[leaf]) for leaf in range(len(layout.leaves))]
            if per_leaf:
                return call.treedef.unflatten([jnp.sqrt(square) for square in each]), aux
            return jnp.sqrt(total_of(each, 1)[0]), aux

        if chunk_size is None or chunk_size >= call.batch_size:
            norms, aux = jax.vmap(one)(call.mapped)
        else:
            norms, aux = jax.lax.map(one, call.mapped, batch_size=chunk_size)
        return (norms, call.aux_tree.unflatten(aux)) if has_aux else norms

    return wrapped


class _Call:
    """One call's arguments, checked and flattened, with the loss of one example traced."""

    def __init__(self, loss_fn, arguments, argnums, has_aux: bool, in_axes: Any):
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
        batch = tuple(value for place, value in enumerate(arguments) if place not in chosen)
        self.treedef: Any = jax.tree.structure(params)
        self.leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(params)]
        self._paths = []
        for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
            self._paths.append(jax.tree_util.keystr(path))
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                raise ValueError(
                    f"params{self._paths[-1]} is {jnp.result_type(leaf)}; pass floating parameters "
                    "only and close over the rest"
                )
        values = jax.tree.leaves(batch)
        batch_tree: Any = jax.tree.structure(batch)
        axes = _flat_axes(in_axes, batch)
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
            example = iter(batch_tree.unflatten(self._merge(mapped, whole)))
            tree = self.treedef.unflatten(leaves)
            trees = dict(zip(chosen, [tree] if isinstance(argnums, int) else tree, strict=True))
            places = range(len(arguments))
            return loss_fn(*(trees[n] if n in trees else next(example) for n in places))

        one = [jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for v in self.mapped]
        closed, result = jax.make_jaxpr(flat, return_shape=True)(self.leaves, one, self._whole)
        loss, aux = result if has_aux else (result, ())
        if getattr(loss, "shape", None) != () or not jnp.issubdtype(loss.dtype, jnp.floating):
            raise ValueError(
                "loss_fn must return one floating scalar for one example (and aux with "
                f"has_aux=True); it returned {loss}"
            )
        self.aux_tree: Any = jax.tree.structure(aux)
        self.sites = sites.find(closed, len(self.leaves))

    def run(
        self,
        mapped: Sequence[Any],
        layout: "_Layout",
        taps: Sequence[Array],
        dense: Sequence[Array],
        probes: Mapping[int, sites.Hook] | None = None,
    ) -> tuple[list[Any], dict[int, Any]]:
        """The outputs of the program on one example, and the data captured by slot.

        `dense` are the leaves that take plain AD, differentiated; `taps` are added where the
        layout says.
        """
        leaves = list(self.leaves)
        for index, value in zip(layout.dense, dense, strict=True):
            leaves[index] = value
        inputs = [*leaves, *mapped, *self._whole]
        hooks = {**layout.hooks(), **(probes or {})}
        return sites.evaluate(self.sites.program, inputs, hooks, layout.by_name(taps))

    def warn_of_large(self, layout: "_Layout") -> None:
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
class _Layout:
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


def _lay_out(found: sites.Sites, leaves: Sequence[Array], skip: set[int] | None = None) -> _Layout:
    """Assigns slots; leaves of one data share its slot. `skip`: leaves that need none."""
    slots: dict[Any, int] = {}
    layout = _Layout([], [], [], ())
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
                layout.taps.append((use, _row_size(use, shape)))
            axes = _inner_axes(mine[0], shape)
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


def _inner_axes(use: sites.Use, shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """in_axes and out_axes, counted without the axes that scans take apart."""
    if not isinstance(use, sites.OuterUse):
        return (), ()
    left = [axis for axis in range(len(shape)) if axis not in sites.stack_axes(use)]
    place = {axis: position for position, axis in enumerate(left)}
    return tuple(place[a] for a in use.in_axes), tuple(place[a] for a in use.out_axes)


def _row_size(use: sites.Use, shape: Sequence[int]) -> int:
    if isinstance(use, sites.OuterUse):
        return math.prod(shape[axis] for axis in use.out_axes)
    rest = [n for axis, n in enumerate(shape) if axis not in sites.stack_axes(use)]
    return math.prod(rest[1:])


def _probe(use: sites.Use, weight: Array, dummy: Array) -> sites.Hook:
    """Passes a result through; its backward gives the squared norm as the dummy's cotangent.

    In a scan that takes the weight apart, AD adds up what the steps give for the one dummy.
    """
    shape, dtype = tuple(weight.shape), weight.dtype
    inner = tuple(n for axis, n in enumerate(shape) if axis not in sites.stack_axes(use))
    step = dataclasses.replace(use, levels=())

    @jax.custom_vjp
    def through(value, data, dummy):
        return value

    def forward(value, data, dummy):
        return value, data

    def backward(data, cotangent):
        g = sites.cotangent_of(step, cotangent, _row_size(use, shape))[None]
        a = sites.data_of(step, data)[None]
        form: Form
        if isinstance(use, sites.OuterUse):
            form = Outer(a, g, inner, dtype, *_inner_axes(use, shape))
        else:
            form = Rows(a, g, inner, dtype)
        return cotangent, None, clamped(form.squared_norms({})[0]).astype(dummy.dtype)

    through.defvjp(forward, backward)
    return lambda value, read, tap: (through(value, read(use.data), dummy), {})


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
