"""Influence by the curvature of the loss: the damped Fisher in EK-FAC's form, from kept factors.

Signs and edge cases are those of `influence`. Padding (`where` is False) counts in no covariance,
whatever it holds.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sie_jax.importance.precision import einsum, wide
from sie_jax.per_example import PerExampleGrads
from sie_jax.per_example.forms import Form, Outer, Rows, Stacked, clamped


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["input", "output"], meta_fields=["axes"]
)
@dataclasses.dataclass(frozen=True)
class Sides:
    """The two sides of one leaf's Kronecker product; the leaf is read as `[L, in, out]`.

    input: `[L, in, in]`, covariances or their eigenvectors in columns; None if the side is diagonal
    already: for a table that is looked up, and for a leaf that is not kept as factors. output:
    `[L, out, out]`; None for a leaf that is not kept as factors. axes: the axes of the leaf that L,
    `in` and `out` merge. L is the number of layers that a scan takes apart, and 1 without a scan;
    each layer has its own matrices.
    """

    input: Array | None
    output: Array | None
    axes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

    def matrices(self, leaf: Array) -> Array:
        """A leaf as `[L, in, out]`."""
        order = sum(self.axes, ())
        sizes = [math.prod(leaf.shape[axis] for axis in axes) for axes in self.axes]
        return jnp.transpose(leaf, order).reshape(sizes)

    def as_leaf(self, matrices: Array, shape: tuple[int, ...]) -> Array:
        """The inverse of `matrices`."""
        order = sum(self.axes, ())
        split = matrices.reshape([shape[axis] for axis in order])
        return jnp.transpose(split, sorted(range(len(order)), key=order.__getitem__))

    def rotated(self, matrices: Array) -> Array:
        """Q_Aᵀ M Q_G for `[L, in, out]`."""
        turned = _to_basis(jnp.swapaxes(matrices, 1, 2), self.input)
        return _to_basis(jnp.swapaxes(turned, 1, 2), self.output)

    def rotated_back(self, matrices: Array) -> Array:
        """Q_A M Q_Gᵀ: the inverse of `rotated`."""
        transposed = (_transposed(self.input), _transposed(self.output))
        return Sides(*transposed, self.axes).rotated(matrices)


def covariance_sums(
    grads: PerExampleGrads, *, where: Bool[Array, " b"] | None = None
) -> list[Sides]:
    """Σ_i Σ_t a_it a_itᵀ and Σ_i Σ_t g_it g_itᵀ by leaf, in the order of `jax.tree.leaves(params)`.

    The first of three steps to `EKFAC`: add these up over batches (`jax.tree.map(jnp.add, …)`),
    take their `eigenbases`, add up `eigenvalue_sums` over the same batches.

    `grads` are those of the Fisher information: of a loss whose label is drawn from the model's own
    p(y|x), not the data's label. Examples outside `where` are left out. So is every position whose
    cotangent is exactly 0 (padding tokens, and all but the first token in BERT's last layer): it
    contributes nothing to the gradient, and the length that a batch is padded to changes nothing.
    """
    return [_covariances(form, where) for form in grads.forms()]


def eigenbases(sums: Sequence[Sides]) -> list[Sides]:
    """The eigenvectors Q_A and Q_G of every leaf's covariances, from their sums or means.

    They are orthogonal, in columns. Cost: in³ + out³ for each matrix.
    """

    def basis(covariance: Array | None) -> Array | None:
        return None if covariance is None else jnp.linalg.eigh(covariance)[1]

    return [Sides(basis(leaf.input), basis(leaf.output), leaf.axes) for leaf in sums]


def eigenvalue_sums(
    grads: PerExampleGrads, bases: Sequence[Sides], *, where: Bool[Array, " b"] | None = None
) -> list[Float[Array, "l in out"]]:
    """Σ_i (Q_Aᵀ ∇W_i Q_G)², entry by entry, for each leaf: the corrected eigenvalues, times N.

    The diagonal of the Fisher in the Kronecker basis (George et al. 2018, "Fast Approximate Natural
    Gradient Descent in a Kronecker-factored Eigenbasis", section 3.2). It is exact for every leaf.
    Memory: the batch's gradients of one weight matrix at a time, and never `[B, rows, H]` for a
    table. `grads` and `where` as in `covariance_sums`.
    """
    return [
        _sum_of_squares(form, sides, where)
        for form, sides in zip(grads.forms(), bases, strict=True)
    ]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["bases", "eigenvalues"],
    meta_fields=["damping"],
)
@dataclasses.dataclass(frozen=True)
class EKFAC:
    """H + λI, the damped Fisher in its eigenvalue-corrected Kronecker-factored form (EK-FAC).

    H is block-diagonal by leaf, (Q_A ⊗ Q_G) Λ (Q_A ⊗ Q_G)ᵀ with Λ = E[(Q_Aᵀ ∇W Q_G)²], for every
    weight that is kept as factors, the encoder's too (Grosse et al. 2023, "Studying Large Language
    Model Generalization with Influence Functions", section 2.2; George et al. 2018). For a table
    that is looked up, Q_A = I, as one-hot data have a diagonal covariance. For every other leaf
    (biases, LayerNorm, a table that is also multiplied with), H is the Fisher's diagonal.

    λ is `damping` times the mean of the leaf's Λ, for each layer of a stacked leaf separately;
    Grosse et al. take 0.1. If that mean is below (32 ε)² of the largest leaf's, ε the rounding unit
    of Λ's dtype, (H + λI)⁻¹ counts as 0. The gradient of such a leaf is nothing but rounding
    errors: softmax, for example, cancels the bias of BERT's keys exactly.

    It is a pytree, so that it can be an argument under `jit`. Memory: Λ is as large as params, the
    bases take in² + out² per matrix.

    bases: from `eigenbases`. eigenvalues: Λ, `eigenvalue_sums` divided by the number of examples.
    """

    bases: list[Sides]
    eigenvalues: list[Array]
    damping: float = 0.1

    def precondition(self, tree: Any) -> Any:
        """(H + λI)⁻¹ v for one direction v given like params; like params.

        The influence of each example on targets whose mean loss gradient is v is then
        `grads.dot(curvature.precondition(v))`. High means HELPFUL: adding ε times the example's
        loss to the mean training loss lowers their loss by ε times this influence.

        Raises:
          ValueError: the tree has another number of leaves than the params that the curvature is
            of, or the damping is not positive.
        """
        leaves, treedef = jax.tree.flatten(tree)
        if len(leaves) != len(self.bases):
            raise ValueError(
                f"precondition: the direction has {len(leaves)} leaves, the curvature "
                f"{len(self.bases)}; pass a tree like params"
            )

        def solved(leaf: Array, sides: Sides, inverse: Array) -> Array:
            rotated = sides.rotated(sides.matrices(wide(leaf)))
            return sides.as_leaf(sides.rotated_back(rotated * inverse), leaf.shape).astype(
                leaf.dtype
            )

        return jax.tree.unflatten(treedef, map(solved, leaves, self.bases, self._inverses()))

    def self_influence(self, grads: PerExampleGrads) -> Float[Array, " b"]:
        """∇ℓ_iᵀ (H + λI)⁻¹ ∇ℓ_i ≥ 0, `[B]`. High: hard, memorised or mislabelled.

        It comes from the factors; the batch's gradients of one weight matrix at a time are
        materialised. Cost: that of norms computed directly, and 2 T (in² + out²) per matrix and
        example for the rotation.
        """
        squares = [
            _weighted_squares(form, sides, inverse)
            for form, sides, inverse in zip(
                grads.forms(), self.bases, self._inverses(), strict=True
            )
        ]
        return sum(squares, jnp.zeros(grads.batch_size))

    def _inverses(self) -> list[Array]:
        """1 / (Λ + λ) for each leaf."""
        if self.damping <= 0:
            raise ValueError(
                f"EKFAC: damping is {self.damping}; pass a positive number, such as 0.1"
            )

        means = [jnp.mean(values, axis=(1, 2), keepdims=True) for values in self.eigenvalues]
        largest = functools.reduce(jnp.maximum, [jnp.max(mean) for mean in means])
        # not relative to the leaf's own mean: noise would then count as much as any gradient
        noise = (32 * jnp.finfo(largest.dtype).eps) ** 2 * largest

        def inverse(eigenvalues: Array, mean: Array) -> Array:
            damped = jnp.where(mean > noise, eigenvalues + self.damping * mean, 1)
            return jnp.where(mean > noise, 1 / damped, 0)

        return list(map(inverse, self.eigenvalues, means))


def _factors(form: Form, where: Array | None) -> Outer | Rows | None:
    """The factors `[B, L, T, …]` of positions that contribute; None for a leaf without factors."""
    layers = form.layers if isinstance(form, Stacked) else form
    if not isinstance(layers, Outer | Rows):
        return None
    if not isinstance(form, Stacked):
        layers = jax.tree.map(lambda factor: factor[:, None], layers)
    g = wide(layers.g)
    if where is not None:
        g = jnp.where(where[:, None, None, None], g, 0)
    counts = jnp.any(g != 0, axis=-1)
    if isinstance(layers, Rows):
        # a position without a row may hold anything; past the last row, nothing is added
        live = layers.ids < layers.shape[0]
        ids = jnp.where(counts, layers.ids, layers.shape[0])
        return dataclasses.replace(layers, ids=ids, g=jnp.where(live[..., None], g, 0))
    a = jnp.where(counts[..., None], wide(layers.a), 0)
    return dataclasses.replace(layers, a=a, g=g)


def _covariances(form: Form, where: Array | None) -> Sides:
    factors = _factors(form, where)
    if factors is None:
        return Sides(None, None, ((), tuple(range(jax.eval_shape(form.materialize).ndim - 1)), ()))
    stack = form.axes if isinstance(form, Stacked) else ()
    rest = [axis for axis in range(len(stack) + len(factors.shape)) if axis not in stack]
    output = einsum("blto,bltp->lop", factors.g, factors.g)
    if isinstance(factors, Rows):
        return Sides(None, output, (stack, (rest[0],), tuple(rest[1:])))
    axes = (
        stack,
        tuple(rest[a] for a in factors.in_axes),
        tuple(rest[a] for a in factors.out_axes),
    )
    return Sides(einsum("blti,bltj->lij", factors.a, factors.a), output, axes)


def _squares(form: Form, sides: Sides, where: Array | None) -> tuple[Array | None, Array]:
    """None, and the squares of every example's rotated gradient, `[B, L, in, out]`.

    For a table: the ids `[B, L, T]` of its rows, and `[B, L, T, out]` that adds up to the squares
    of these rows: Σ_t g_t · Σ_t' g_t' over the positions t of one row is the square of its sum.
    """
    factors = _factors(form, where)
    if factors is None:
        gradients = form.materialize()
        gradients = wide(gradients.reshape(len(gradients), 1, -1, 1))
        if where is not None:
            gradients = jnp.where(where[:, None, None, None], gradients, 0)
        return None, gradients**2
    g = _to_basis(factors.g, sides.output)
    if isinstance(factors, Rows):
        same = factors.ids[..., :, None] == factors.ids[..., None, :]
        return factors.ids, g * einsum("blts,blso->blto", same.astype(g.dtype), g)
    return None, einsum("blti,blto->blio", _to_basis(factors.a, sides.input), g) ** 2


def _sum_of_squares(form: Form, sides: Sides, where: Array | None) -> Array:
    ids, squares = _squares(form, sides, where)
    if ids is None:
        return jnp.sum(squares, axis=0)
    assert isinstance(form, Rows | Stacked)  # what has ids
    shape = (ids.shape[1], form.shape[sides.axes[1][0]], squares.shape[-1])
    total = jnp.zeros(shape, squares.dtype)
    return clamped(total.at[jnp.arange(shape[0])[:, None], ids].add(squares, mode="drop"))


def _weighted_squares(form: Form, sides: Sides, weights: Array) -> Array:
    ids, squares = _squares(form, sides, None)
    if ids is None:
        return einsum("blio,lio->b", squares, weights)
    layers = jnp.arange(ids.shape[1])[:, None]
    taken = weights.at[layers, ids].get(mode="fill", fill_value=0)
    return clamped(jnp.sum(squares * taken, axis=(1, 2, 3)))


def _transposed(basis: Array | None) -> Array | None:
    return None if basis is None else jnp.swapaxes(basis, 1, 2)


def _to_basis(vectors: Array, basis: Array | None) -> Array:
    """Qᵀ v for the last axis of `[…, L, n, size]`; None is the identity."""
    return vectors if basis is None else einsum("...lni,lij->...lnj", vectors, basis)
