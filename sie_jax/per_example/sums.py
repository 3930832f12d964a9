"""Sums of gradients over groups of consecutive examples, form by form, and products with them.

The terms of a group may nearly cancel: under a softmax over a list the cotangents add up to 0. The
Gram form would lose that difference to rounding (an error of √ε in place of ε, relative to the
terms' norms), and so a sum's norm is taken from the sum itself:

| form                 | its sums                                                                 |
|----------------------|--------------------------------------------------------------------------|
| Rows                 | the rows that the group touches; all rows if there are fewer of them     |
| Outer, Stacked, Tied | multiplied out: what the plain weight gradient multiplies, kept by group |
| Dense                | added up                                                                 |
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from sie_jax.per_example.forms import Dense, Form, Outer, Rows, Stacked, Tied, Zero, wide


def summed(forms: Sequence[Form], number: int) -> Rows | Dense | Zero:
    """The sums over `number` groups of one leaf's gradients: in group n, block n of every form.

    A form of B examples has `number` blocks of B / number consecutive examples.
    """
    first, *others = [form for form in forms if not isinstance(form, Zero)] or forms[:1]
    if isinstance(first, Zero):
        return Zero(number, first.shape, first.dtype)
    tables = [form for form in (first, *others) if isinstance(form, Rows)]
    if isinstance(first, Rows) and len(tables) == 1 + len(others):
        ids = jnp.concatenate([_sequence(table.ids, number) for table in tables], 1)
        g = jnp.concatenate([_sequence(table.g, number) for table in tables], 1)
        if ids.shape[1] < first.shape[0]:
            return Rows(ids, g, first.shape, first.dtype).added()
    matrices = [_multiplied(form, number) for form in (first, *others)]
    return Dense(functools.reduce(jnp.add, matrices))


def along(form: Form, sums: Form, number: int) -> Array:
    """⟨∇ℓ_i, the sum of i's group⟩, [B], for one leaf's `summed`."""
    if isinstance(form, Zero):
        return jnp.zeros((form.batch_size,), wide(form.dtype))

    def one(form: Any, total: Any) -> Array:
        if isinstance(total, Dense):
            return form.dot(total.grad)
        return form.along(total)

    blocks = jax.tree.map(lambda factor: factor.reshape(number, -1, *factor.shape[1:]), form)
    return jax.vmap(one)(blocks, sums).reshape(-1)


def _multiplied(form: Outer | Rows | Tied | Stacked | Dense | Zero, number: int) -> Array:
    """The sums [number, *leaf] as arrays."""
    if isinstance(form, Dense):
        blocks = form.grad.reshape(number, -1, *form.grad.shape[1:])
        return jnp.sum(blocks, 1, dtype=wide(blocks.dtype)).astype(blocks.dtype)

    def joined(layer: Any) -> Any:
        return jax.tree.map(lambda factor: _sequence(factor, number), layer)

    if isinstance(form, Stacked):
        layers = jax.vmap(joined, in_axes=1, out_axes=1)(form.layers)
        return dataclasses.replace(form, layers=layers).materialize()
    return joined(form).materialize()


def _sequence(factor: Array, number: int) -> Array:
    """[B, T, …] as the [number, B / number · T, …] of each group, whose gradient is the sum."""
    return factor.reshape(number, -1, *factor.shape[2:])
