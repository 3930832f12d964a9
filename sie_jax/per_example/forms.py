"""The forms a per-example gradient takes: Outer, Rows, Tied, Stacked, Dense, Zero.

Guarantees, for every form:

| quantity           | result                                                                     |
|--------------------|----------------------------------------------------------------------------|
| accumulation       | at least float32 (float64 for float64 factors)                             |
| matrix products    | `Precision.HIGHEST`; `weighted_sum` keeps the precision of the forward pass |
| squared norms      | never below 0, whatever the rounding                                       |
| weight exactly 0   | contributes exactly 0 to `PerExampleGrads.weighted_sum`, even of NaN       |
| materialize        | the leaf's dtype; every other method agrees with it up to rounding         |
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

# What moving a byte to or from memory costs, in operations: about 10 on CPUs, more on accelerators.
OPERATIONS_PER_BYTE = 10

# Products of a factor with itself, by the factor's identity: layers that read the same input
# (query, key, value) compute it once.
Products = dict[int, Any]


class Covariance(NamedTuple):
    """Second moments of what a weight's gradient is made of, for K-FAC and EK-FAC.

    input: 1/B Σ_i Σ_t a_it a_itᵀ, [in, in]; for a table that is looked up, the mean count of each
    row, [rows], as its data are one-hot. cotangent: 1/B Σ_i Σ_t g_it g_itᵀ, [out, out]. The axes
    `in` and `out` merge the leaf's contracted and other axes in ascending order; a leaf that a scan
    takes apart has its layers as a leading axis of both.
    """

    input: Array
    cotangent: Array


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["a", "g"],
    meta_fields=["shape", "dtype", "in_axes", "out_axes", "precision", "shared"],
)
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
        T, size_in = self.a.shape[-2:]
        return 2 * T * T * (size_in // self.shared + self.g.shape[-1])

    @property
    def direct_flops(self) -> int:
        """Multiply–adds ×2 of one example's aᵀ g and its squared norm."""
        T, size_in = self.a.shape[-2:]
        return 2 * (T + 1) * size_in * self.g.shape[-1]

    @property
    def uses_gram(self) -> bool:
        T, size_in = self.a.shape[-2:]
        # Float32 results, written and read: the two of [T, T], or the one of [in, out].
        gram_bytes, direct_bytes = 16 * T * T, 8 * size_in * self.g.shape[-1]
        return _cost(self.gram_flops, gram_bytes) <= _cost(self.direct_flops, direct_bytes)

    def squared_norms(self, products: Products) -> Array:
        """Σ_tt' (a_t·a_t')(g_t·g_t'), or ‖aᵀg‖² where that is estimated cheaper."""
        if self.uses_gram:
            return jnp.sum(
                _self_product(self.a, products) * _self_product(self.g, products), (1, 2)
            )
        return _sum_of_squares(_dot("bti,bto->bio", self.a, self.g))

    def weighted_sum(self, weights: Array) -> Array:
        a, g = self.a, self.g
        dtype = jnp.promote_types(a.dtype, g.dtype)
        # A pass over memory: over the side that has fewer numbers, counting what leaves share once.
        if a.shape[2] <= g.shape[2] * self.shared:
            a = _scaled(a, weights).astype(dtype)
        else:
            g = _scaled(g, weights).astype(dtype)
        # dot(g, a) then a transpose: XLA keeps g and a as they lie, as plain backprop does.
        # The product rounds to the leaf's dtype itself, as backprop's: of bfloat16 factors, XLA's
        # CPU backend has no product whose float32 result is transposed and rounded after.
        result_dtype = jnp.promote_types(self.dtype, dtype)
        total = _dot("bto,bti->oi", g, a, precision=self.precision, result_dtype=result_dtype)
        return self._as_leaf(total.T[None])[0].astype(self.dtype)

    def dot(self, vector: Array) -> Array:
        order = self.in_axes + self.out_axes
        matrix = jnp.transpose(vector, order).reshape(self.a.shape[2], self.g.shape[2])
        return jnp.sum(_dot("bti,io->bto", self.a, matrix) * self.g, (1, 2))

    def gram(self, other: "Outer") -> Array:
        B, T, size_in = self.a.shape
        others, steps, size_out = other.g.shape
        if (
            B * others * T * steps * (size_in + size_out)
            > (B * T + others * steps + B * others) * size_in * size_out
        ):
            left, right = (_dot("bti,bto->bio", form.a, form.g) for form in (self, other))
            return _dot("bi,ci->bc", left.reshape(B, -1), right.reshape(others, -1))

        def row(factors: tuple[Array, Array]) -> Array:
            a, g = factors
            of_data = _dot("ti,bsi->bts", a, other.a)
            return jnp.sum(of_data * _dot("to,bso->bts", g, other.g), (1, 2))

        return lax.map(row, (self.a, self.g))

    def project(self, maps: Sequence[Array]) -> Array:
        a = _along(self.a, [self.shape[axis] for axis in self.in_axes], maps, self.in_axes)
        g = _along(self.g, [self.shape[axis] for axis in self.out_axes], maps, self.out_axes)
        matrices = _dot("bti,bto->bio", a.reshape(*a.shape[:2], -1), g.reshape(*g.shape[:2], -1))
        return self._as_leaf(matrices, [part.shape[1] for part in maps])

    def covariance(self) -> Covariance:
        return Covariance(*(_dot("bti,btj->ij", f, f) / f.shape[0] for f in (self.a, self.g)))

    def materialize(self) -> Array:
        return self._as_leaf(_dot("bti,bto->bio", self.a, self.g)).astype(self.dtype)

    def _as_leaf(self, matrices: Array, sizes: Sequence[int] = ()) -> Array:
        order = self.in_axes + self.out_axes
        sizes = sizes or self.shape
        split = matrices.reshape(matrices.shape[0], *(sizes[axis] for axis in order))
        inverse = sorted(range(len(order)), key=lambda place: order[place])
        return jnp.transpose(split, (0, *(place + 1 for place in inverse)))


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["ids", "g"],
    meta_fields=["shape", "dtype", "distinct"],
)
@dataclasses.dataclass(frozen=True)
class Rows:
    """∇ℓ_i has g_it added to row ids_it, for a table looked up by id.

    ids: [B, T], in 0…rows, where `rows` itself (one past the last) means that nothing is added.
    g: [B, T, H]. shape, dtype: the leaf's; its first axis is looked up, the others are H.
    distinct: an example's ids ascend, and of equal ones all but the first have g = 0.
    """

    ids: Array
    g: Array
    shape: tuple[int, ...]
    dtype: Any
    distinct: bool = False

    @property
    def gram_flops(self) -> int:
        T, size = self.g.shape[-2:]
        return 2 * T * T * size

    @property
    def direct_flops(self) -> int:
        T, size = self.g.shape[-2:]
        return (T + 2 * min(T, self.shape[0])) * size

    @property
    def uses_gram(self) -> bool:
        T, size = self.g.shape[-2:]
        # Float32 results: [T, T] written and read; the rows zeroed, added to and read.
        gram_bytes, direct_bytes = 8 * T * T, 12 * min(T, self.shape[0]) * size
        return _cost(self.gram_flops, gram_bytes) <= _cost(self.direct_flops, direct_bytes)

    def squared_norms(self, products: Products) -> Array:
        """Σ_tt' [ids_t = ids_t'](g_t·g_t'), or the squares of the summed rows where cheaper.

        Rows are summed where they lie among the T of the example, not in a table of its own: at
        most T of them are touched.
        """
        if self.distinct:
            return _sum_of_squares(jnp.where((self.ids < self.shape[0])[:, :, None], self.g, 0))
        if self.uses_gram:
            same = self._same(self.ids[:, :, None], self.ids[:, None, :])
            return jnp.sum(jnp.where(same, _self_product(self.g, products), 0), (1, 2))
        if self.g.shape[1] < self.shape[0]:
            return self.added().squared_norms(products)
        return _sum_of_squares(self.scattered())

    def weighted_sum(self, weights: Array) -> Array:
        g = _scaled(self.g, weights).astype(self.g.dtype)
        rows = g.reshape(-1, g.shape[2]).astype(wide(g.dtype))
        total = jnp.zeros((self.shape[0], g.shape[2]), rows.dtype)
        total = total.at[self.ids.reshape(-1)].add(rows, mode="drop")
        return total.reshape(self.shape).astype(self.dtype)

    def dot(self, vector: Array) -> Array:
        rows = vector.reshape(self.shape[0], -1).astype(wide(self.dtype))
        taken = rows.at[self.ids].get(mode="fill", fill_value=0)
        valid = (self.ids < self.shape[0])[:, :, None]
        return jnp.sum(jnp.where(valid, taken * self.g, 0), (1, 2))

    def gram(self, other: "Rows") -> Array:
        if self.g.shape[1] * other.g.shape[1] > self.shape[0]:
            left, right = (form.scattered() for form in (self, other))
            return _dot("bi,ci->bc", left.reshape(len(left), -1), right.reshape(len(right), -1))

        def row(factors: tuple[Array, Array]) -> Array:
            ids, g = factors
            same = self._same(ids[None, :, None], other.ids[:, None, :])
            return jnp.sum(jnp.where(same, _dot("th,bsh->bts", g, other.g), 0), (1, 2))

        return lax.map(row, (self.ids, self.g))

    def project(self, maps: Sequence[Array]) -> Array:
        rows = maps[0].at[self.ids].get(mode="fill", fill_value=0)
        axes = range(1, len(self.shape))
        g = _along(self.g, self.shape[1:], maps, axes)
        # a position without a row may hold anything, NaN included
        g = jnp.where((self.ids < self.shape[0])[:, :, None], g.reshape(*g.shape[:2], -1), 0)
        return _dot("btk,bth->bkh", rows, g).reshape(-1, *(part.shape[1] for part in maps))

    def covariance(self) -> Covariance:
        valid = (self.ids < self.shape[0])[:, :, None]
        g = jnp.where(valid, self.g, 0)
        counts = jnp.zeros((self.shape[0],), wide(self.dtype))
        counts = counts.at[self.ids.reshape(-1)].add(1, mode="drop")
        return Covariance(counts / len(g), _dot("bti,btj->ij", g, g) / len(g))

    def materialize(self) -> Array:
        return self.scattered().reshape(-1, *self.shape).astype(self.dtype)

    def added(self) -> "Rows":
        """The same gradient with `ids` sorted and `distinct` g."""

        def one(ids: Array, g: Array) -> tuple[Array, Array]:
            ordered = jnp.sort(ids)
            zeros = jnp.zeros(g.shape, wide(g.dtype))
            return ordered, zeros.at[jnp.searchsorted(ordered, ids)].add(g.astype(zeros.dtype))

        ids, g = jax.vmap(one)(self.ids, self.g)
        return dataclasses.replace(self, ids=ids, g=g, distinct=True)

    def along(self, total: "Rows") -> Array:
        """⟨∇ℓ_i, v⟩ for one v with `distinct` ids [S] and g [S, H]."""
        place = jnp.searchsorted(total.ids, self.ids)
        found = total.ids.at[place].get(mode="fill", fill_value=self.shape[0])
        taken = total.g.at[place].get(mode="clip")
        same = self._same(self.ids, found)[:, :, None]
        return jnp.sum(jnp.where(same, taken * self.g, 0), (1, 2))

    def _same(self, left: Array, right: Array) -> Array:
        return (left == right) & (left < self.shape[0])

    def scattered(self) -> Array:
        def one(ids: Array, g: Array) -> Array:
            zeros = jnp.zeros((self.shape[0], g.shape[1]), wide(g.dtype))
            return zeros.at[ids].add(g.astype(zeros.dtype), mode="drop")

        return jax.vmap(one)(self.ids, self.g)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["outer", "rows"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Tied:
    """∇ℓ_i = outer_i + rows_i, for a table that is looked up and also multiplied with.

    The table's rows are all of the product's inputs, or all of its outputs.
    """

    outer: Outer
    rows: Rows

    @property
    def gram_flops(self) -> int:
        return self.outer.gram_flops + self.rows.gram_flops + self._cross_flops

    @property
    def direct_flops(self) -> int:
        return self.outer.direct_flops + self.rows.direct_flops

    @property
    def uses_gram(self) -> bool:
        return self.outer.uses_gram

    @property
    def _cross_flops(self) -> int:
        return 2 * self.outer.a.shape[-2] * math.prod(self.rows.g.shape[-2:])

    def squared_norms(self, products: Products) -> Array:
        """‖outer‖² + ‖rows‖² + 2 Σ_ts of[t, ids_s] (other_t·g_s), of the side that has the rows."""
        one = self.outer.squared_norms(products) + self.rows.squared_norms(products)

        def cross(own: tuple[Array, Array, Array, Array]) -> Array:
            of_rows, other, ids, g = own
            return _cross(of_rows, other, ids[None], g[None])[0]

        return one + 2 * jax.vmap(cross)((*self._sides(), self.rows.ids, self.rows.g))

    def weighted_sum(self, weights: Array) -> Array:
        return self.outer.weighted_sum(weights) + self.rows.weighted_sum(weights)

    def dot(self, vector: Array) -> Array:
        return self.outer.dot(vector) + self.rows.dot(vector)

    def gram(self, other: "Tied") -> Array:
        def crossed(products: "Tied", rows: Rows) -> Array:
            def one(sides: tuple[Array, Array]) -> Array:
                return _cross(sides[0], sides[1], rows.ids, rows.g)

            return lax.map(one, products._sides())

        return (
            self.outer.gram(other.outer)
            + self.rows.gram(other.rows)
            + crossed(self, other.rows)
            + crossed(other, self.rows).T
        )

    def project(self, maps: Sequence[Array]) -> Array:
        return self.outer.project(maps) + self.rows.project(maps)

    def covariance(self) -> None:
        return None  # the sum of two products is not the product of second moments

    def materialize(self) -> Array:
        return self.outer.materialize() + self.rows.materialize()

    def _sides(self) -> tuple[Array, Array]:
        """The product's factor that has the table's rows as its last axis, and the other one."""
        if self.outer.in_axes == (0,):
            return self.outer.a, self.outer.g
        return self.outer.g, self.outer.a


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["layers"], meta_fields=["shape", "dtype", "axes"]
)
@dataclasses.dataclass(frozen=True)
class Stacked:
    """A leaf of which a scan takes one entry a step: `layers`, a form whose factors are [B, L, …].

    shape, dtype: the leaf's. axes: those that the scans take apart, ascending; L merges them.
    """

    layers: "Outer | Rows | Tied"
    shape: tuple[int, ...]
    dtype: Any
    axes: tuple[int, ...]

    @property
    def gram_flops(self) -> int:
        return self._depth * self.layers.gram_flops

    @property
    def direct_flops(self) -> int:
        return self._depth * self.layers.direct_flops

    @property
    def uses_gram(self) -> bool:
        return self.layers.uses_gram

    @property
    def _depth(self) -> int:
        return math.prod(self.shape[axis] for axis in self.axes)

    def squared_norms(self, products: Products) -> Array:
        return jnp.sum(self._each(lambda form: clamped(form.squared_norms({}))), 0)

    def weighted_sum(self, weights: Array) -> Array:
        return self._as_leaf(self._each(lambda form: form.weighted_sum(weights)), 0)

    def dot(self, vector: Array) -> Array:
        parts = jnp.moveaxis(vector, self.axes, range(len(self.axes)))
        parts = parts.reshape(self._depth, *parts.shape[len(self.axes) :])
        products = jax.vmap(lambda form, part: form.dot(part), in_axes=(1, 0))(self.layers, parts)
        return jnp.sum(products, 0)

    def gram(self, other: "Stacked") -> Array:
        products = jax.vmap(lambda ours, theirs: ours.gram(theirs), in_axes=1)
        return jnp.sum(products(self.layers, other.layers), 0)

    def project(self, maps: Sequence[Array]) -> Array:
        inner = [part for axis, part in enumerate(maps) if axis not in self.axes]
        projected = self._each(lambda form: form.project(inner))
        split = projected.reshape(*(self.shape[axis] for axis in self.axes), *projected.shape[1:])
        for axis in self.axes:  # each becomes the last
            split = jnp.tensordot(split, maps[axis], ((0,), (0,)), precision=_HIGHEST)
        last = range(split.ndim - len(self.axes), split.ndim)
        return jnp.moveaxis(split, last, [1 + axis for axis in self.axes])

    def covariance(self) -> Covariance | None:
        if isinstance(self.layers, Tied):
            return None
        return self._each(lambda form: form.covariance())

    def materialize(self) -> Array:
        return self._as_leaf(self._each(lambda form: form.materialize()), 1)

    def _each(self, function: Any) -> Any:
        """[L, …] of what the function gives for each layer."""
        return jax.vmap(function, in_axes=1)(self.layers)

    def _as_leaf(self, layers: Array, leading: int) -> Array:
        """[L, leading axes, the rest of the leaf] as [leading axes, the leaf]."""
        depths = [self.shape[axis] for axis in self.axes]
        split = layers.reshape(*depths, *layers.shape[1:])
        return jnp.moveaxis(split, range(len(depths)), [leading + axis for axis in self.axes])


@functools.partial(jax.tree_util.register_dataclass, data_fields=["grad"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Dense:
    """∇ℓ_i itself, [B, ...]: biases, normalisation scales and every use of no other form."""

    grad: Array

    def squared_norms(self, products: Products) -> Array:
        return _sum_of_squares(self.grad)

    def weighted_sum(self, weights: Array) -> Array:
        return _dot("b,b...->...", weights, self.grad).astype(self.grad.dtype)

    def dot(self, vector: Array) -> Array:
        return _dot("bi,i->b", self.grad.reshape(self.grad.shape[0], -1), vector.reshape(-1))

    def gram(self, other: "Dense") -> Array:
        left, right = (form.grad.reshape(len(form.grad), -1) for form in (self, other))
        return _dot("bi,ci->bc", left, right)

    def project(self, maps: Sequence[Array]) -> Array:
        grad = self.grad.astype(wide(self.grad.dtype))
        for part in maps:  # each axis in turn becomes the last
            grad = jnp.tensordot(grad, part, ((1,), (0,)), precision=_HIGHEST)
        return grad

    def covariance(self) -> None:
        return None

    def materialize(self) -> Array:
        return self.grad


@dataclasses.dataclass(frozen=True)
class Zero:
    """∇ℓ_i = 0: a leaf that the loss does not depend on."""

    batch_size: int
    shape: tuple[int, ...]
    dtype: Any

    def squared_norms(self, products: Products) -> Array:
        return jnp.zeros((self.batch_size,), wide(self.dtype))

    def weighted_sum(self, weights: Array) -> Array:
        return jnp.zeros(self.shape, self.dtype)

    def dot(self, vector: Array) -> Array:
        return jnp.zeros((self.batch_size,), wide(self.dtype))

    def gram(self, other: "Zero") -> Array:
        return jnp.zeros((self.batch_size, other.batch_size), wide(self.dtype))

    def project(self, maps: Sequence[Array]) -> Array:
        sizes = (part.shape[1] for part in maps)
        return jnp.zeros((self.batch_size, *sizes), wide(self.dtype))

    def covariance(self) -> None:
        return None

    def materialize(self) -> Array:
        return jnp.zeros((self.batch_size, *self.shape), self.dtype)


Form = Outer | Rows | Tied | Stacked | Dense | Zero


_HIGHEST = lax.Precision.HIGHEST


def _cost(flops: int, moved: int) -> int:
    return flops + OPERATIONS_PER_BYTE * moved


def wide(dtype: Any) -> Any:
    return jnp.promote_types(dtype, jnp.float32)


def _dot(
    equation: str,
    left: Array,
    right: Array,
    precision: Any = _HIGHEST,
    result_dtype: Any = None,
) -> Array:
    dtype = jnp.promote_types(left.dtype, right.dtype)
    return jnp.einsum(
        equation,
        left.astype(dtype),
        right.astype(dtype),
        precision=precision,
        preferred_element_type=wide(dtype) if result_dtype is None else result_dtype,
    )


def _self_product(factor: Array, products: Products) -> Array:
    """factor · factorᵀ, computed once for each factor."""
    if id(factor) not in products:
        products[id(factor)] = (factor, _dot("bti,bsi->bts", factor, factor))
    return products[id(factor)][1]


def _sum_of_squares(values: Array) -> Array:
    values = values.astype(wide(values.dtype))
    return jnp.sum(values * values, axis=tuple(range(1, values.ndim)))


def _scaled(values: Array, weights: Array) -> Array:
    return values * weights.reshape(-1, *(1 for _ in values.shape[1:]))


def _cross(of_rows: Array, other: Array, ids: Array, g: Array) -> Array:
    """⟨outer, rows_j⟩ [B] for one example's product (`_sides`) and all tables [B, S] looked up."""
    taken = jnp.take(of_rows, ids, axis=1, mode="fill", fill_value=0)  # [T, B, S]
    inner = _dot("th,bsh->tbs", other, g)
    valid = ids < of_rows.shape[1]
    return jnp.sum(jnp.where(valid, taken.astype(inner.dtype) * inner, 0), (0, 2))


def _along(
    factor: Array, sizes: Sequence[int], maps: Sequence[Array], axes: Iterable[int]
) -> Array:
    """[B, T, Π sizes] with each of the merged axes multiplied by its map: [B, T, k, …]."""
    split = factor.reshape(*factor.shape[:2], *sizes).astype(wide(factor.dtype))
    for axis in axes:  # each in turn becomes the last
        split = jnp.tensordot(split, maps[axis], ((2,), (0,)), precision=_HIGHEST)
    return split


def clamped(square: Array) -> Array:
    """Rounding of the Gram form may give a tiny negative number; NaN stays NaN."""
    return jnp.maximum(square, 0)
