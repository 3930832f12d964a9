"""Per-example gradients of a loss: taps go in where weights meet data, forms come out."""

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from sie_jax.errors import UserError
from sie_jax.per_example import sites
from sie_jax.per_example.forms import Form, Leaf, Outer, PerExampleGrads, Rows, clamped, total_of


def value_and_grad(
    loss_fn: Callable[..., Any], *, has_aux: bool = False, in_axes: Any = 0
) -> Callable[..., Any]:
    """Losses and exact per-example gradients, from one forward and one backward pass.

    Args:
      loss_fn: `(params, *example) -> scalar`, or `(scalar, aux)` where `has_aux`. It sees ONE
        example. Params is any pytree of floating arrays (a dict, a Flax NNX State, …).
      has_aux: whether `loss_fn` returns auxiliary data beside the loss.
      in_axes: as in `jax.vmap`, for the batch arguments only; None passes an argument whole to
        every example.

    Returns:
      `(params, *batch) -> (losses [B], PerExampleGrads)`, or `((losses, aux), PerExampleGrads)`
      with every leaf of aux batched.

    Exact whatever the loss does: a weight that meets data in a matrix product or a table look-up
    is kept as factors; every other use takes plain AD for that leaf. A loss that couples examples
    (in-batch negatives, batch norm) has no gradient of this kind: make the group the example.

    Raises:
      UserError: a parameter that is not floating, a loss that is not a scalar, or batch arguments
        that disagree on B.
    """

    def wrapped(params: Any, *batch: Any):
        call = _Call(loss_fn, params, batch, has_aux, in_axes)
        layout = _lay_out(call.sites, call.leaves)

        def one(taps: list[Array], dense: list[Array], mapped: list[Any]):
            outputs, read = call.run(mapped, layout.dense, dense, layout.tap(taps))
            data = [sites.data_of(use, read(use.data), rows) for use, rows in layout.data]
            return outputs[0], (outputs[1:], data)

        gradient = jax.value_and_grad(one, argnums=(0, 1), has_aux=True)
        mapped = jax.vmap(gradient, in_axes=(None, None, 0))(
            layout.zeros(call.sites.program),
            [call.leaves[index] for index in layout.dense],
            call.mapped,
        )
        (losses, (aux, data)), (cotangents, dense) = mapped
        standard = [
            jax.vmap(functools.partial(sites.cotangent_of, use, row_size=size))(g)
            for g, (use, size) in zip(cotangents, layout.taps, strict=True)
        ]
        grads = PerExampleGrads(
            tuple(data), tuple(standard), tuple(dense), call.batch_size, layout.leaves, call.treedef
        )
        return ((losses, call.aux_tree.unflatten(aux)) if has_aux else losses), grads

    return wrapped


def grad_norms(
    loss_fn: Callable[..., Any],
    *,
    chunk_size: int | None = None,
    has_aux: bool = False,
    in_axes: Any = 0,
) -> Callable[..., Any]:
    """‖∇ℓ_i‖ alone, exact, without keeping any factor.

    Each place where a weight meets data returns its squared norm from the backward pass, so no
    factor outlives its layer. How much memory that leaves in use is the compiler's choice
    (benchmarks/results/step.json has it for BERT); `chunk_size` bounds it.

    Args:
      loss_fn, has_aux, in_axes: as in `value_and_grad`.
      chunk_size: examples handled at a time, one chunk after the other; any size, the last chunk
        may be smaller. None takes the whole batch at once.

    Returns:
      `(params, *batch) -> norms [B]`, or `(norms, aux)`; equal to `PerExampleGrads.norms()` up to
      rounding.

    Raises:
      UserError: as `value_and_grad`, or a chunk_size below 1.
    """
    if chunk_size is not None and chunk_size < 1:
        raise UserError(f"grad_norms: chunk_size is {chunk_size}; pass a positive number or None")

    def wrapped(params: Any, *batch: Any):
        call = _Call(loss_fn, params, batch, has_aux, in_axes)
        program = call.sites.program
        # A weight that meets data twice has a norm with cross terms: its factors meet first.
        once = {leaf for leaf, uses in enumerate(call.sites.uses) if len(uses) == 1}
        layout = _lay_out(call.sites, call.leaves, skip=once)
        probed = [(call.sites.uses[leaf][0], call.leaves[leaf]) for leaf in sorted(once)]

        def one(mapped: list[Any]):
            def loss(taps: list[Array], dense: list[Array], dummies: list[Array]):
                hooks = layout.tap(taps)
                for (use, weight), dummy in zip(probed, dummies, strict=True):
                    hooks[use.operation] = _probe(use, weight, dummy)
                outputs, read = call.run(mapped, layout.dense, dense, hooks)
                data = [sites.data_of(use, read(use.data), rows) for use, rows in layout.data]
                return outputs[0], (outputs[1:], data)

            dummies = [jnp.zeros((), jnp.promote_types(w.dtype, jnp.float32)) for _, w in probed]
            (cotangents, dense, squares), (aux, data) = jax.grad(
                loss, argnums=(0, 1, 2), has_aux=True
            )(layout.zeros(program), [call.leaves[index] for index in layout.dense], dummies)
            g = [
                sites.cotangent_of(use, g, size)[None]
                for g, (use, size) in zip(cotangents, layout.taps, strict=True)
            ]
            kept = PerExampleGrads(
                tuple(values[None] for values in data),
                tuple(g),
                tuple(values[None] for values in dense),
                1,
                tuple(leaf for index, leaf in enumerate(layout.leaves) if index not in once),
                None,
            )
            rest = [form.squared_norms({})[0] for form in kept.forms()]
            total = total_of([clamped(square) for square in squares + rest], 1)
            return jnp.sqrt(total[0]), aux

        if chunk_size is None or chunk_size >= call.batch_size:
            norms, aux = jax.vmap(one)(call.mapped)
        else:
            norms, aux = jax.lax.map(one, call.mapped, batch_size=chunk_size)
        return (norms, call.aux_tree.unflatten(aux)) if has_aux else norms

    return wrapped


class _Call:
    """One call's arguments, checked and flattened, with the loss of one example traced."""

    def __init__(self, loss_fn, params, batch, has_aux: bool, in_axes: Any):
        self.treedef: Any = jax.tree.structure(params)
        self.leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(params)]
        for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                name = jax.tree_util.keystr(path)
                raise UserError(
                    f"params{name} is {jnp.result_type(leaf)}; pass floating parameters only and "
                    "close over the rest"
                )
        values = jax.tree.leaves(batch)
        batch_tree: Any = jax.tree.structure(batch)
        axes = _flat_axes(in_axes, batch)
        try:
            sizes = {jnp.shape(v)[a] for v, a in zip(values, axes, strict=True) if a is not None}
        except IndexError:
            raise UserError(
                "a batch argument lacks the batch axis; give it None in in_axes to pass it whole"
            ) from None
        if len(sizes) != 1:
            raise UserError(
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
            example = batch_tree.unflatten(self._merge(mapped, whole))
            return loss_fn(self.treedef.unflatten(leaves), *example)

        one = [jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for v in self.mapped]
        closed, result = jax.make_jaxpr(flat, return_shape=True)(self.leaves, one, self._whole)
        loss, aux = result if has_aux else (result, ())
        if getattr(loss, "shape", None) != () or not jnp.issubdtype(loss.dtype, jnp.floating):
            raise UserError(
                "loss_fn must return one floating scalar for one example (and aux with "
                f"has_aux=True); it returned {loss}"
            )
        self.aux_tree: Any = jax.tree.structure(aux)
        self.sites = sites.find(closed, len(self.leaves))

    def run(self, mapped, dense_indices, dense, hooks):
        """The program on one example, with some leaves replaced by differentiated ones."""
        leaves = list(self.leaves)
        for index, value in zip(dense_indices, dense, strict=True):
            leaves[index] = value
        return sites.evaluate(self.sites.program, [*leaves, *mapped, *self._whole], hooks)

    def _merge(self, mapped: Sequence[Any], whole: Sequence[Any]) -> list[Any]:
        mapped_values, whole_values = iter(mapped), iter(whole)
        return [next(whole_values) if axis is None else next(mapped_values) for axis in self._axes]


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Slots: which data to capture, where to tap, which leaves take plain AD; and all leaves."""

    data: list[tuple[sites.Use, int]]
    taps: list[tuple[sites.Use, int]]
    dense: list[int]
    leaves: tuple[Leaf, ...]

    def tap(self, taps: Sequence[Array]) -> dict[int, Callable[[Any, Any], Any]]:
        def hook(tap: Array) -> Callable[[Any, Any], Any]:
            return lambda value, read: value + tap

        return {use.operation: hook(tap) for (use, _), tap in zip(self.taps, taps, strict=True)}

    def zeros(self, program: sites.Program) -> list[Array]:
        found = [program.shapes[use.output] for use, _ in self.taps]
        return [jnp.zeros(result.shape, result.dtype) for result in found]


def _lay_out(found: sites.Sites, leaves: Sequence[Array], skip: set[int] | None = None) -> _Layout:
    """Assigns slots; leaves of one data share its slot. `skip`: leaves that need none."""
    slots: dict[Any, int] = {}
    layout = _Layout([], [], [], ())
    described: list[Leaf] = []
    for index, (leaf, uses) in enumerate(zip(leaves, found.uses, strict=True)):
        shape, dtype = tuple(leaf.shape), jnp.dtype(leaf.dtype)
        if found.reasons[index]:
            described.append(
                Leaf(shape, dtype, "dense", (len(layout.dense),), reasons=found.reasons[index])
            )
            layout.dense.append(index)
            continue
        if not uses or (skip and index in skip):
            described.append(Leaf(shape, dtype, "zero"))
            continue
        data, taps = [], []
        for use in uses:
            rows = shape[0] if isinstance(use, sites.RowsUse) else 0
            if (use.data_key, rows) not in slots:
                slots[use.data_key, rows] = len(layout.data)
                layout.data.append((use, rows))
            data.append(slots[use.data_key, rows])
            taps.append(len(layout.taps))
            layout.taps.append((use, _row_size(use, shape)))
        first = uses[0]
        found_leaf = Leaf(shape, dtype, "rows", tuple(data), tuple(taps))
        if isinstance(first, sites.OuterUse):
            found_leaf = dataclasses.replace(
                found_leaf,
                kind="outer",
                in_axes=first.in_axes,
                out_axes=first.out_axes,
                precision=first.precision,
            )
        described.append(found_leaf)
    sharing = collections.Counter(leaf.data for leaf in described if leaf.kind == "outer")
    shared = tuple(
        dataclasses.replace(leaf, shared=sharing[leaf.data]) if leaf.kind == "outer" else leaf
        for leaf in described
    )
    return dataclasses.replace(layout, leaves=shared)


def _row_size(use: sites.Use, shape: tuple[int, ...]) -> int:
    if isinstance(use, sites.OuterUse):
        return math.prod(shape[axis] for axis in use.out_axes)
    return math.prod(shape[1:])


def _probe(use: sites.Use, weight: Array, dummy: Array) -> Callable[[Any, Any], Any]:
    """Passes a result through; its backward gives the squared norm as the dummy's cotangent."""
    shape, dtype = tuple(weight.shape), weight.dtype

    @jax.custom_vjp
    def through(value, data, dummy):
        return value

    def forward(value, data, dummy):
        return value, data

    def backward(data, cotangent):
        g = sites.cotangent_of(use, cotangent, _row_size(use, shape))[None]
        a = sites.data_of(use, data, shape[0] if isinstance(use, sites.RowsUse) else 0)[None]
        form: Form
        if isinstance(use, sites.OuterUse):
            form = Outer(a, g, shape, dtype, use.in_axes, use.out_axes)
        else:
            form = Rows(a, g, shape, dtype)
        return cotangent, None, form.squared_norms({})[0].astype(dummy.dtype)

    through.defvjp(forward, backward)
    return lambda value, read: through(value, read(use.data), dummy)


def _flat_axes(in_axes: Any, batch: tuple[Any, ...]) -> list[int | None]:
    if isinstance(in_axes, list):
        in_axes = tuple(in_axes)
    try:
        axes = jax.tree.broadcast(in_axes, batch, is_leaf=lambda axis: axis is None)
    except ValueError:
        raise UserError(
            f"in_axes {in_axes} does not match {len(batch)} batch arguments; give an int, None or "
            "a tuple with one entry for each argument after params"
        ) from None
    return jax.tree.leaves(axes, is_leaf=lambda axis: axis is None)
