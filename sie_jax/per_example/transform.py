"""Per-example gradients of a loss: taps go in where weights meet data, forms come out."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from sie_jax.per_example import sites
from sie_jax.per_example.call import Call, inner_axes, lay_out, loss_and_aux, row_size
from sie_jax.per_example.forms import Form, Outer, Rows, clamped
from sie_jax.per_example.gradients import PerExampleGrads, total_of
from sie_jax.per_example.sums import summed

_SCALAR = "loss_fn must return one floating scalar for one example"


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
      with every leaf of aux batched. It takes its arguments as `loss_fn` does; those given by
      keyword are batch arguments whose leading axis is the batch, as in `jax.vmap`.

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

    results = functools.partial(loss_and_aux, has_aux=has_aux, what=_SCALAR)

    def wrapped(*arguments: Any, **keywords: Any):
        call = Call(loss_fn, arguments, keywords, argnums, in_axes, results)
        layout = lay_out(call.sites, call.leaves)
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
    cancelling: bool = False,
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
      cancelling: each gradient is a sum of terms that may nearly cancel (a list under a ranking
        loss). No norm is then taken from products of tokens, whose rounding would hide the small
        difference: the error is relative to the terms' norms, at the price of the plain gradient.

    Returns:
      `(params, *batch) -> norms [B]`, or `(norms, aux)`; equal to `PerExampleGrads.norms()` up to
      rounding.

    Raises:
      ValueError: as `value_and_grad`, or a chunk_size below 1.
    """
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"grad_norms: chunk_size is {chunk_size}; pass a positive number or None")

    results = functools.partial(loss_and_aux, has_aux=has_aux, what=_SCALAR)

    def square(form: Form) -> Array:
        """‖∇ℓ‖² of one example's form, whose leading axis is 1."""
        return (summed([form], 1) if cancelling else form).squared_norms({})[0]

    def wrapped(*arguments: Any, **keywords: Any):
        call = Call(loss_fn, arguments, keywords, argnums, in_axes, results)
        # A weight that meets data twice has a norm with cross terms: its factors meet first.
        once = {
            leaf
            for leaf, uses in enumerate(call.sites.uses)
            if len(uses) == 1
            and call.leaves[leaf].size
            and all(level.stack_axis is not None for level in uses[0].levels)
        }
        layout = lay_out(call.sites, call.leaves, skip=once)
        call.warn_of_large(layout)
        probed = [(call.sites.uses[leaf][0], call.leaves[leaf]) for leaf in sorted(once)]

        def one(mapped: list[Any]):
            def loss(taps: list[Array], dense: list[Array], dummies: list[Array]):
                probes = {
                    use.output: _probe(use, weight, dummy, square)
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
            rest = [square(form) for form in kept.forms()]
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


def _probe(
    use: sites.Use, weight: Array, dummy: Array, square: Callable[[Form], Array]
) -> sites.Hook:
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
        g = sites.cotangent_of(step, cotangent, row_size(use, shape))[None]
        a = sites.data_of(step, data)[None]
        form: Form
        if isinstance(use, sites.OuterUse):
            form = Outer(a, g, inner, dtype, *inner_axes(use, shape))
        else:
            form = Rows(a, g, inner, dtype)
        return cotangent, None, clamped(square(form)).astype(dummy.dtype)

    through.defvjp(forward, backward)
    return lambda value, read, tap: (through(value, read(use.data), dummy), {})
