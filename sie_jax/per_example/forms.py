"""The forms a per-example gradient takes (Outer, Rows, Dense, Zero) and what is computed from each.

Guarantees, for every form:

| quantity           | result                                                                     |
|--------------------|----------------------------------------------------------------------------|
| accumulation       | at least float32 (float64 for float64 factors)                             |
| matrix products    | `Precision.HIGHEST`; `weighted_sum` keeps the precision of the forward pass |
| squared norms      | never below 0, whatever the rounding                                       |
| weight exactly 0   | contributes exactly 0 to `weighted_sum`, even if the example holds NaN     |
| materialize        | the leaf's dtype; every other method agrees with it up to rounding         |
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from sie_jax.errors import UserError

# Products of a factor with itself, by the factor's identity: layers that read the same input
# (query, key, value) compute it once.
Products = dict[int, Any]


@dataclasses.dataclass(frozen=True)
class Outer:
    """∇ℓ_i = a_iᵀ g_i, for a weight matrix.

    a: [B, T, in], the data that meets the weight. g: [B, T, out], the cotangents there.
    shape, dtype: the leaf's. in_axes, out_axes: the leaf's axes that `in` and `out` merge.
    precision: of the forward product. shared: how many leaves have this `a`.
    """

    a: Array
    g: Array
    shape: tuple[int, ...]
    dtype: Any
    in_axes: tuple[int, ...]
    out_axes: tuple[int, ...]
    precision: Any = None
    shared: int = 1

    @property
    def gram_flops(self) -> int:
        """Multiply–adds ×2 of the Gram form of one example's squared norm."""
        _, T, size_in = self.a.shape
        return 2 * T * T * (size_in // self.shared + self.g.shape[2])

    @property
    def direct_flops(self) -> int:
        """Multiply–adds ×2 of one example's aᵀ g and its squared norm."""
        _, T, size_in = self.a.shape
        return 2 * (T + 1) * size_in * self.g.shape[2]

    @property
    def uses_gram(self) -> bool:
        return self.gram_flops <= self.direct_flops

    def squared_norms(self, products: Products) -> Array:
        """Σ_tt' (a_t·a_t')(g_t·g_t'), or ‖aᵀg‖² where that takes fewer operations."""
        if self.uses_gram:
            return jnp.sum(
                _self_product(self.a, products) * _self_product(self.g, products), (1, 2)
            )
        return _sum_of_squares(_dot("bti,bto->bio", self.a, self.g))

    def weighted_sum(self, weights: Array) -> Array:
        # dot(g, a) then a transpose: XLA keeps g and a as they lie, as plain backprop does.
        g = _masked(self.g, weights, scale=True)
        a = _masked(self.a, weights, scale=False)
        total = _dot("bto,bti->oi", g, a, precision=self.precision)
        return self._as_leaf(total.T[None])[0].astype(self.dtype)

    def dot(self, vector: Array) -> Array:
        order = self.in_axes + self.out_axes
        matrix = jnp.transpose(vector, order).reshape(self.a.shape[2], self.g.shape[2])
        return jnp.sum(_dot("bti,io->bto", self.a, matrix) * self.g, (1, 2))

    def gram(self) -> Array:
        B, T, size_in = self.a.shape
        size_out = self.g.shape[2]
        if B * T * T * (size_in + size_out) > (T + B) * size_in * size_out:
            flat = _dot("bti,bto->bio", self.a, self.g).reshape(B, -1)
            return _dot("bi,ci->bc", flat, flat)

        def row(factors: tuple[Array, Array]) -> Array:
            a, g = factors
            of_data = _dot("ti,bsi->bts", a, self.a)
            return jnp.sum(of_data * _dot("to,bso->bts", g, self.g), (1, 2))

        return lax.map(row, (self.a, self.g))

    def materialize(self) -> Array:
        return self._as_leaf(_dot("bti,bto->bio", self.a, self.g)).astype(self.dtype)

    def _as_leaf(self, matrices: Array) -> Array:
        order = self.in_axes + self.out_axes
        split = matrices.reshape(matrices.shape[0], *(self.shape[axis] for axis in order))
        inverse = sorted(range(len(order)), key=lambda place: order[place])
        return jnp.transpose(split, (0, *(place + 1 for place in inverse)))


@dataclasses.dataclass(frozen=True)
class Rows:
    """∇ℓ_i has g_it added to row ids_it, for a table looked up by id.

    ids: [B, T], in 0…rows, where `rows` itself (one past the last) means that nothing is added.
    g: [B, T, H]. shape, dtype: the leaf's; its first axis is looked up, the others are H.
    """

    ids: Array
    g: Array
    shape: tuple[int, ...]
    dtype: Any

    @property
    def gram_flops(self) -> int:
        _, T, size = self.g.shape
        return 2 * T * T * size

    @property
    def direct_flops(self) -> int:
        _, T, size = self.g.shape
        return (T + 2 * self.shape[0]) * size

    @property
    def uses_gram(self) -> bool:
        return self.gram_flops <= self.direct_flops

    def squared_norms(self, products: Products) -> Array:
        """Σ_tt' [ids_t = ids_t'](g_t·g_t'), or the squares of the summed rows where cheaper."""
        if self.uses_gram:
            same = self._same(self.ids[:, :, None], self.ids[:, None, :])
            return jnp.sum(jnp.where(same, _self_product(self.g, products), 0), (1, 2))
        return _sum_of_squares(self._scattered())

    def weighted_sum(self, weights: Array) -> Array:
        g = _masked(self.g, weights, scale=True)
        rows = g.reshape(-1, g.shape[2]).astype(_wide(g.dtype))
        total = jnp.zeros((self.shape[0], g.shape[2]), rows.dtype)
        total = total.at[self.ids.reshape(-1)].add(rows, mode="drop")
        return total.reshape(self.shape).astype(self.dtype)

    def dot(self, vector: Array) -> Array:
        rows = vector.reshape(self.shape[0], -1).astype(_wide(self.dtype))
        taken = rows.at[self.ids].get(mode="fill", fill_value=0)
        valid = (self.ids < self.shape[0])[:, :, None]
        return jnp.sum(jnp.where(valid, taken * self.g, 0), (1, 2))

    def gram(self) -> Array:
        if self.g.shape[1] ** 2 > self.shape[0]:
            flat = self._scattered().reshape(self.g.shape[0], -1)
            return _dot("bi,ci->bc", flat, flat)

        def row(factors: tuple[Array, Array]) -> Array:
            ids, g = factors
            same = self._same(ids[None, :, None], self.ids[:, None, :])
            return jnp.sum(jnp.where(same, _dot("th,bsh->bts", g, self.g), 0), (1, 2))

        return lax.map(row, (self.ids, self.g))

    def materialize(self) -> Array:
        return self._scattered().reshape(-1, *self.shape).astype(self.dtype)

    def _same(self, left: Array, right: Array) -> Array:
        return (left == right) & (left < self.shape[0])

    def _scattered(self) -> Array:
        def one(ids: Array, g: Array) -> Array:
            zeros = jnp.zeros((self.shape[0], g.shape[1]), _wide(g.dtype))
            return zeros.at[ids].add(g.astype(zeros.dtype), mode="drop")

        return jax.vmap(one)(self.ids, self.g)


@dataclasses.dataclass(frozen=True)
class Dense:
    """∇ℓ_i itself, [B, ...]: biases, normalisation scales and every use of no other form."""

    grad: Array

    def squared_norms(self, products: Products) -> Array:
        return _sum_of_squares(self.grad)

    def weighted_sum(self, weights: Array) -> Array:
        # Scaling comes after the mask, in the accumulator's precision.
        total = _dot("b,b...->...", weights, _masked(self.grad, weights, scale=False))
        return total.astype(self.grad.dtype)

    def dot(self, vector: Array) -> Array:
        return _dot("bi,i->b", self.grad.reshape(self.grad.shape[0], -1), vector.reshape(-1))

    def gram(self) -> Array:
        flat = self.grad.reshape(self.grad.shape[0], -1)
        return _dot("bi,ci->bc", flat, flat)

    def materialize(self) -> Array:
        return self.grad


@dataclasses.dataclass(frozen=True)
class Zero:
    """∇ℓ_i = 0: a leaf that the loss does not depend on."""

    batch_size: int
    shape: tuple[int, ...]
    dtype: Any

    def squared_norms(self, products: Products) -> Array:
        return jnp.zeros((self.batch_size,), _wide(self.dtype))

    def weighted_sum(self, weights: Array) -> Array:
        return jnp.zeros(self.shape, self.dtype)

    def dot(self, vector: Array) -> Array:
        return jnp.zeros((self.batch_size,), _wide(self.dtype))

    def gram(self) -> Array:
        return jnp.zeros((self.batch_size, self.batch_size), _wide(self.dtype))

    def materialize(self) -> Array:
        return jnp.zeros((self.batch_size, *self.shape), self.dtype)


Form = Outer | Rows | Dense | Zero


@dataclasses.dataclass(frozen=True)
class Leaf:
    """How one parameter leaf's gradients are kept: which data and cotangents belong to it."""

    shape: tuple[int, ...]
    dtype: Any
    kind: str  # "outer", "rows", "dense" or "zero"
    data: tuple[int, ...] = ()
    cotangents: tuple[int, ...] = ()
    in_axes: tuple[int, ...] = ()
    out_axes: tuple[int, ...] = ()
    precision: Any = None
    shared: int = 1
    reasons: tuple[str, ...] = ()


@jax.tree_util.register_pytree_node_class
class PerExampleGrads:
    """The gradients of B examples' losses, kept as the factors that backprop produced.

    A pytree: it crosses `jit`, and so do all its methods. Weights that two layers share, or that
    meet data more than once, are handled exactly. `params`-like results have the parameters' tree
    type and dtypes; everything else is float32 (float64 for float64 parameters).

    Memory: as the backward pass of plain training; an unrecognised use of a weight costs B times
    that weight (`explain` tells which).
    """

    def __init__(self, data, cotangents, dense, batch_size: int, leaves, treedef):
        self._data: tuple[Array, ...] = data
        self._cotangents: tuple[Array, ...] = cotangents
        self._dense: tuple[Array, ...] = dense
        self.batch_size = batch_size
        self._leaves: tuple[Leaf, ...] = leaves
        self._treedef = treedef

    def tree_flatten(self):
        children = (self._data, self._cotangents, self._dense)
        return children, (self.batch_size, self._leaves, self._treedef)

    @classmethod
    def tree_unflatten(cls, static, children):
        return cls(*children, *static)

    def forms(self) -> list[Form]:
        """The form of every leaf, in the order of `jax.tree.leaves(params)`."""
        joined: dict[tuple[int, ...], Array] = {}
        return [self._form(leaf, joined) for leaf in self._leaves]

    def reasons(self) -> list[tuple[str, ...]]:
        """The primitives that made a leaf's gradient be materialised; none for the others."""
        return [leaf.reasons for leaf in self._leaves]

    def norms(self, *, per_leaf: bool = False) -> Any:
        """‖∇ℓ_i‖ over all parameters, [B]; or, `per_leaf`, a tree like params of [B] norms."""
        products: Products = {}
        squares = [clamped(form.squared_norms(products)) for form in self.forms()]
        if per_leaf:
            return self._treedef.unflatten([jnp.sqrt(square) for square in squares])
        return jnp.sqrt(total_of(squares, self.batch_size))

    def weighted_sum(self, weights: Array) -> Any:
        """Σ_i w_i ∇ℓ_i, like params.

        An example of weight 0 contributes exactly 0, even if its loss or gradient is NaN.

        Raises:
          UserError: the weights are not of shape [B].
        """
        weights = jnp.asarray(weights)
        if weights.shape != (self.batch_size,):
            raise UserError(
                f"weighted_sum: weights have shape {weights.shape}; pass [{self.batch_size}], "
                "one weight for each example"
            )
        return self._treedef.unflatten([form.weighted_sum(weights) for form in self.forms()])

    def mean(self) -> Any:
        """The gradient of the mean loss, like params."""
        return self.weighted_sum(jnp.full((self.batch_size,), 1 / self.batch_size))

    def dot(self, tree: Any) -> Array:
        """⟨∇ℓ_i, v⟩ for one direction v given like params.

        Raises:
          UserError: the tree's structure is not that of params.
        """
        vectors, treedef = jax.tree.flatten(tree)
        if treedef != self._treedef:
            raise UserError("dot: the direction is not a tree like params; pass one that is")
        products = [f.dot(vector) for f, vector in zip(self.forms(), vectors, strict=True)]
        return total_of(products, self.batch_size)

    def gram(self) -> Array:
        """⟨∇ℓ_i, ∇ℓ_j⟩ for all pairs of examples."""
        products = [form.gram() for form in self.forms()]
        return sum(products, jnp.zeros((self.batch_size, self.batch_size)))

    def materialize(self) -> Any:
        """∇ℓ_i itself, like params with a leading axis B: B times the parameters' memory."""
        return self._treedef.unflatten([form.materialize() for form in self.forms()])

    def _form(self, leaf: Leaf, joined: dict[tuple[int, ...], Array]) -> Form:
        if leaf.kind == "zero":
            return Zero(self.batch_size, leaf.shape, leaf.dtype)
        if leaf.kind == "dense":
            return Dense(self._dense[leaf.data[0]])
        # A weight that meets data several times: its gradient is that of the joined sequences.
        g = _joined(self._cotangents, leaf.cotangents)
        # One array for all leaves of the same data, so that its product is computed once.
        data = joined.setdefault(leaf.data, _joined(self._data, leaf.data))
        if leaf.kind == "rows":
            return Rows(data, g, leaf.shape, leaf.dtype)
        axes = (leaf.in_axes, leaf.out_axes)
        return Outer(data, g, leaf.shape, leaf.dtype, *axes, leaf.precision, leaf.shared)


def _wide(dtype: Any) -> Any:
    return jnp.promote_types(dtype, jnp.float32)


def _dot(equation: str, left: Array, right: Array, precision: Any = lax.Precision.HIGHEST) -> Array:
    dtype = jnp.promote_types(left.dtype, right.dtype)
    return jnp.einsum(
        equation,
        left.astype(dtype),
        right.astype(dtype),
        precision=precision,
        preferred_element_type=_wide(dtype),
    )


def _self_product(factor: Array, products: Products) -> Array:
    """factor · factorᵀ, computed once for each factor."""
    if id(factor) not in products:
        products[id(factor)] = (factor, _dot("bti,bsi->bts", factor, factor))
    return products[id(factor)][1]


def _sum_of_squares(values: Array) -> Array:
    wide = values.astype(_wide(values.dtype))
    return jnp.sum(wide * wide, axis=tuple(range(1, values.ndim)))


def _masked(values: Array, weights: Array, *, scale: bool) -> Array:
    """values (times weights where `scale`), exactly 0 at weight 0 even where values hold NaN.

    The result has the dtype of `values`: backprop of a weighted loss would round the same way.
    """
    weights = weights.reshape(-1, *(1 for _ in values.shape[1:]))
    scaled = (values * weights).astype(values.dtype) if scale else values
    return jnp.where(weights == 0, jnp.zeros((), values.dtype), scaled)


def _joined(values: Sequence[Array], slots: Sequence[int]) -> Array:
    chosen = [values[slot] for slot in slots]
    return chosen[0] if len(chosen) == 1 else jnp.concatenate(chosen, axis=1)


def clamped(square: Array) -> Array:
    """Rounding of the Gram form may give a tiny negative number; NaN stays NaN."""
    return jnp.maximum(square, 0)


def total_of(values: Sequence[Array], batch_size: int) -> Array:
    return sum(values, jnp.zeros((batch_size,)))
