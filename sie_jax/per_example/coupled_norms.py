"""The norms of contributions under a coupled loss, in two passes that keep no factor."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from sie_jax.per_example.call import loss_and_aux
from sie_jax.per_example.transform import grad_norms
from sie_jax.per_example.units import SCALAR, OutputsFns, calls_of, check_rest, functions_of


class CoupledNorms(NamedTuple):
    """What `coupled_grad_norms` finds; "each function's" as in `Contributions`.

    units: each function's norms [U_f]. lists: the lists' norms [number], or None. rest: ∂F/∂rest
    with all outputs fixed. cotangents: each function's ∂F/∂outputs, like the outputs. With weights
    w, the gradient of Σ_u w_u ⟨cotangents_u, outputs_u(θ)⟩ is Σ_u w_u c_u: the second pass of a
    weighted step.
    """

    units: Any
    lists: Array | None
    rest: Any
    cotangents: Any


def coupled_grad_norms(
    outputs_fns: OutputsFns,
    coupling: Callable[..., Any],
    *,
    has_aux: bool = False,
    lists: int | None = None,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """The norms of contributions alone, without keeping any factor.

    First all outputs and their cotangents, by a forward pass; then, with these held fixed, the
    norms of ∇⟨cotangents_u, outputs_u⟩ by `grad_norms`, and once more over whole lists where
    `lists` asks for them. Dropout keys belong to the units, and so all passes see the same.

    Args:
      outputs_fns, coupling, has_aux: as in `coupled_value_and_grad`.
      lists: the number of lists whose norms are wanted, as in `Contributions.lists`.
      chunk_size: units of one function handled at a time, for the lists' norms whole lists of no
        more than so many units, but at least one. None takes all at once.

    Returns:
      `(params, units, rest, *arguments) -> (F, CoupledNorms)`, or `((F, aux), CoupledNorms)`; equal
      to what `Contributions` says up to rounding.

    Raises:
      ValueError: as `coupled_value_and_grad`; `lists` that do not divide each U_f; a chunk_size
        below 1.
    """
    functions, single = functions_of(outputs_fns)
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(
            f"coupled_grad_norms: chunk_size is {chunk_size}; pass a positive number or None"
        )

    def wrapped(params: Any, units: Any, rest: Any, *arguments: Any, **keywords: Any):
        calls = calls_of(functions, single, params, units)
        check_rest(rest)
        sizes = [call.batch_size for call in calls]
        if lists is not None and (lists < 1 or any(size % lists for size in sizes)):
            raise ValueError(
                f"coupled_grad_norms: units {sizes} are not {lists} lists of one size; pass lists "
                "that divide them"
            )
        units = (units,) if single else tuple(units)

        def whole(outputs: Any, rest: Any):
            result = coupling(outputs[0] if single else outputs, rest, *arguments, **keywords)
            return loss_and_aux(result, has_aux, SCALAR)

        outputs = tuple(
            jax.lax.map(lambda unit, own=own: own(params, *unit), unit, batch_size=chunk_size or n)
            for own, unit, n in zip(functions, units, sizes, strict=True)
        )
        gradient = jax.value_and_grad(whole, argnums=(0, 1), has_aux=True)
        (value, aux), (cotangents, of_rest) = gradient(outputs, rest)
        norms = [
            grad_norms(functools.partial(_held, own), chunk_size=chunk_size)(params, *held)
            for own, *held in zip(functions, units, cotangents, strict=True)
        ]
        of_lists = None
        if lists is not None:
            of_list = functools.partial(_list_held, functions)
            chunk = None if chunk_size is None else max(1, chunk_size * lists // max(sizes))
            blocks = jax.tree.map(
                lambda values: values.reshape(lists, -1, *values.shape[1:]), (units, cotangents)
            )
            of_lists = grad_norms(of_list, chunk_size=chunk, cancelling=True)(params, *blocks)
        found = CoupledNorms(
            norms[0] if single else tuple(norms),
            of_lists,
            of_rest,
            cotangents[0] if single else cotangents,
        )
        return ((value, aux) if has_aux else value), found

    return wrapped


def _held(function: Callable[..., Any], params: Any, unit: Any, cotangents: Any) -> Array:
    """⟨cotangents, outputs⟩ of one unit, whose gradient is the unit's contribution."""
    outputs = function(params, *unit)
    products = jax.tree.map(lambda c, s: jnp.sum(c * s), cotangents, outputs)
    return functools.reduce(jnp.add, jax.tree.leaves(products))


def _list_held(
    functions: Sequence[Callable[..., Any]], params: Any, units: Any, cotangents: Any
) -> Array:
    """The same for all units of one list."""
    totals = [
        jnp.sum(jax.vmap(functools.partial(_held, own, params))(unit, held))
        for own, unit, held in zip(functions, units, cotangents, strict=True)
    ]
    return functools.reduce(jnp.add, totals)
