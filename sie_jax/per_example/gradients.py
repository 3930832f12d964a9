"""The gradients of a batch, kept as factors, and everything that can be asked of them."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from sie_jax.per_example.forms import (
    Dense,
    Form,
    Outer,
    Products,
    Rows,
    Stacked,
    Tied,
    Zero,
    clamped,
    wide,
)
from sie_jax.per_example.sums import along, summed


@dataclasses.dataclass(frozen=True)
class Part:
    """One kind of use of a leaf: which data and cotangents belong to it.

    in_axes, out_axes: of the leaf without the axes that scans take apart. distinct: as of `Rows`.
    """

    kind: str  # "outer" or "rows"
    data: tuple[int, ...]
    cotangents: tuple[int, ...]
    in_axes: tuple[int, ...] = ()
    out_axes: tuple[int, ...] = ()
    precision: Any = None
    shared: int = 1
    distinct: bool = False


@dataclasses.dataclass(frozen=True)
class Leaf:
    """How one parameter leaf's gradients are kept: as parts, or as the array of slot `dense`.

    Neither: zero. stack_axes: those that scans take apart. reasons: why it is an array.
    """

    shape: tuple[int, ...]
    dtype: Any
    parts: tuple[Part, ...] = ()
    dense: int | None = None
    stack_axes: tuple[int, ...] = ()
    reasons: tuple[str, ...] = ()


@jax.tree_util.register_pytree_node_class
class PerExampleGrads:
    """The gradients of B examples' losses, kept as the factors that backprop produced.

    A pytree: it crosses `jit`, and so do all its methods. Weights that two layers share, or that
    meet data more than once, are handled exactly. `params`-like results have the parameters' tree
    type and dtypes; everything else is float32 (float64 for float64 parameters).

    Range: squares of entries are added up in that precision. In float32 a norm above 1e19 or so is
    infinite, and what entries below 1e-19 add to a norm is lost; scale the loss, or take float64.

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

    def leaves(self) -> list[tuple[str, Leaf]]:
        """The path of every leaf, and how its gradients are kept, in the same order."""
        numbered = self._treedef.unflatten(range(len(self._leaves)))
        paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(numbered)]
        return list(zip(paths, self._leaves, strict=True))

    def norms(self, *, per_leaf: bool = False) -> Any:
        """‖∇ℓ_i‖ over all parameters, [B]; or, `per_leaf`, a tree like params of [B] norms."""
        products: Products = {}
        squares = [clamped(form.squared_norms(products)) for form in self.forms()]
        if per_leaf:
            return self._treedef.unflatten([jnp.sqrt(square) for square in squares])
        return jnp.sqrt(total_of(squares, self.batch_size))

    def weighted_sum(self, weights: Array) -> Any:
        """Σ_i w_i ∇ℓ_i, like params.

        An example of weight 0 contributes exactly 0, even if its loss or gradient is NaN. A float64
        convolution on a CPU is the exception: XLA makes the gradients of a batch in one product
        with zeros there, and the NaN of one example is in all of them, norms included.

        Raises:
          ValueError: the weights are not of shape [B].
        """
        weights = jnp.asarray(weights)
        if weights.shape != (self.batch_size,):
            raise ValueError(
                f"weighted_sum: weights have shape {weights.shape}; pass [{self.batch_size}], "
                "one weight for each example"
            )
        children, static = self.tree_flatten()
        children = jax.tree.unflatten(
            jax.tree.structure(children), _zeroed(weights == 0, jax.tree.leaves(children))
        )
        forms = self.tree_unflatten(static, children).forms()
        return self._treedef.unflatten([form.weighted_sum(weights) for form in forms])

    def mean(self) -> Any:
        """The gradient of the mean loss, like params.

        Raises:
          ValueError: the batch has no example.
        """
        if not self.batch_size:
            raise ValueError("mean: the batch has no example; pass one or more")
        return self.weighted_sum(jnp.full((self.batch_size,), 1 / self.batch_size))

    def dot(self, tree: Any) -> Array:
        """⟨∇ℓ_i, v⟩ for one direction v given like params.

        Raises:
          ValueError: the tree's structure is not that of params.
        """
        vectors, treedef = jax.tree.flatten(tree)
        if treedef != self._treedef:
            raise ValueError("dot: the direction is not a tree like params; pass one that is")
        products = [f.dot(vector) for f, vector in zip(self.forms(), vectors, strict=True)]
        return total_of(products, self.batch_size)

    def gram(self, other: "PerExampleGrads | None" = None) -> Array:
        """⟨∇ℓ_i, ∇ℓ'_j⟩, [B, B'], for all pairs of examples of this batch and of another one.

        Without `other`, of this batch with itself. Leaves whose forms differ between the two (the
        other loss uses a weight in another way) are materialised.

        Raises:
          ValueError: the other gradients are not of params like these.
        """
        other = self if other is None else other
        self._check_params(other, "gram")
        products = [_gram(*pair) for pair in zip(self.forms(), other.forms(), strict=True)]
        return sum(products, jnp.zeros((self.batch_size, other.batch_size)))

    def grouped(self, number: int, *others: "PerExampleGrads") -> "PerExampleGrads":
        """The gradients of `number` sums: Σ ∇ℓ_i over block n of these examples, and of the others.

        The B examples are `number` blocks of B / number consecutive ones, and so are the B' of each
        of the others, whose own B' may differ: a query and its items, say. Accurate also where the
        terms of a sum nearly cancel: errors are relative to Σ ‖∇ℓ_i‖ of its terms.

        Memory: a weight matrix is multiplied out for every sum, at the price of the plain weight
        gradient. That is less than the factors take where a sum has more than in·out/(in+out)
        positions. A large table stays rows. `weighted_sum` of the result costs no further product.

        Raises:
          ValueError: `number` does not divide a batch size, or others are of other params.
        """
        every = (self, *others)
        for grads in every:
            self._check_params(grads, "grouped")
            if number < 1 or grads.batch_size % number:
                raise ValueError(
                    f"grouped: {grads.batch_size} examples are not {number} groups of one size; "
                    "pass a number that divides them"
                )
        sums = [
            summed(forms, number) for forms in zip(*(grads.forms() for grads in every), strict=True)
        ]
        data: list[Array] = []
        cotangents: list[Array] = []
        dense: list[Array] = []
        leaves = []
        for leaf, form in zip(self._leaves, sums, strict=True):
            described = Leaf(leaf.shape, leaf.dtype)
            if isinstance(form, Rows):
                slot = (len(data),)
                part = Part("rows", slot, slot, distinct=True)
                described = dataclasses.replace(described, parts=(part,))
                data.append(form.ids)
                cotangents.append(form.g)
            elif isinstance(form, Dense):
                described = dataclasses.replace(described, dense=len(dense), reasons=("summed",))
                dense.append(form.grad)
            leaves.append(described)
        return PerExampleGrads(
            tuple(data), tuple(cotangents), tuple(dense), number, tuple(leaves), self._treedef
        )

    def agreement(self, groups: "PerExampleGrads") -> Array:
        """⟨∇ℓ_i, the gradient of i's group⟩, [B], for `groups` as `grouped` gives them.

        Over the terms of a group they add up to the square of the group's norm.

        Raises:
          ValueError: the groups are of other params, or there are not B / number examples in each.
        """
        self._check_params(groups, "agreement")
        if self.batch_size % groups.batch_size:
            raise ValueError(
                f"agreement: {self.batch_size} examples are not in {groups.batch_size} groups of "
                "one size; pass what grouped gives for them"
            )
        products = [
            along(form, total, groups.batch_size)
            for form, total in zip(self.forms(), groups.forms(), strict=True)
        ]
        return total_of(products, self.batch_size)

    def project(self, key: Array, dim: int) -> Array:
        """P ∇ℓ_i, [B, dim], with a random matrix P that is never built.

        For each leaf, P is a Kronecker product of one matrix of signs, ±1/√k, for each of the
        leaf's axes (the k multiply to dim), and the leaves' projections add up. So it is linear,
        depends on key, dim and the shapes of params alone, whatever the loss, and over keys
        E ⟨P x, P y⟩ = ⟨x, y⟩. For the part x of one leaf, Var ‖P x‖² ≤ (Π (1 + 2/k) − 1) ‖x‖⁴, the
        product over the leaf's axes: one with k = 1 triples it, so take a dim of many factors.

        Raises:
          ValueError: dim is below 1.

        Source: Park et al., TRAK, 2023 (projected gradients); Choe et al., LoGra, 2024 (Kronecker).
        """
        if dim < 1:
            raise ValueError(f"project: dim is {dim}; pass a positive number")
        shapes = [leaf.shape or (1,) for leaf in self._leaves]
        spread = [_spread(dim, shape) for shape in shapes]
        lengths = [
            n * k for pair in zip(shapes, spread, strict=True) for n, k in zip(*pair, strict=True)
        ]
        # all at once: a draw for each axis of each leaf would take most of the time to compile
        drawn = jax.random.rademacher(key, (sum(lengths),), jnp.int8)
        signs = iter(jnp.split(drawn, list(itertools.accumulate(lengths))[:-1]))
        total = jnp.zeros((self.batch_size, dim))
        for leaf, shape, sizes, form in zip(
            self._leaves, shapes, spread, self.forms(), strict=True
        ):
            maps = [
                next(signs).reshape(n, k).astype(wide(leaf.dtype)) / math.sqrt(k)
                for n, k in zip(shape, sizes, strict=True)
            ]
            if not leaf.shape:
                scalars = form.materialize().astype(wide(leaf.dtype))
                projected = scalars[:, None] * maps[0]
            else:
                projected = form.project(maps)
            total = total + projected.reshape(self.batch_size, dim)
        return total

    def covariances(self) -> Any:
        """A tree like params of `Covariance`; None where a leaf is not kept as factors.

        Nothing is centred. Also None for a table that is both looked up and multiplied with.
        """
        return self._treedef.unflatten([form.covariance() for form in self.forms()])

    def materialize(self) -> Any:
        """∇ℓ_i itself, like params with a leading axis B: B times the parameters' memory."""
        return self._treedef.unflatten([form.materialize() for form in self.forms()])

    def _check_params(self, other: "PerExampleGrads", method: str) -> None:
        if (other._treedef, other._shapes) != (self._treedef, self._shapes):
            raise ValueError(
                f"{method}: the other gradients are of other params; pass one params to both"
            )

    @property
    def _shapes(self) -> list[tuple[int, ...]]:
        return [leaf.shape for leaf in self._leaves]

    def _form(self, leaf: Leaf, joined: dict[tuple[int, ...], Array]) -> Form:
        if leaf.dense is not None:
            return Dense(self._dense[leaf.dense])
        if not leaf.parts:
            return Zero(self.batch_size, leaf.shape, leaf.dtype)
        shape = tuple(n for axis, n in enumerate(leaf.shape) if axis not in leaf.stack_axes)
        forms = [self._part(leaf, part, shape, joined) for part in leaf.parts]
        form: Any = forms[0] if len(forms) == 1 else Tied(*forms)
        return Stacked(form, leaf.shape, leaf.dtype, leaf.stack_axes) if leaf.stack_axes else form

    def _part(
        self, leaf: Leaf, part: Part, shape: tuple[int, ...], joined: dict[tuple[int, ...], Array]
    ) -> Any:
        # A weight that meets data several times: its gradient is that of the joined sequences.
        axis = 2 if leaf.stack_axes else 1
        g = _joined(self._cotangents, part.cotangents, axis)
        # One array for all leaves of the same data, so that its product is computed once.
        data = joined.setdefault(part.data, _joined(self._data, part.data, axis))
        if part.kind == "rows":
            return Rows(data, g, shape, leaf.dtype, part.distinct)
        axes = (part.in_axes, part.out_axes)
        return Outer(data, g, shape, leaf.dtype, *axes, part.precision, part.shared)


@jax.custom_jvp
def _zeroed(excluded: Array, arrays: list[Array]) -> list[Array]:
    """The arrays [B, …] with exact zeros where an example is excluded.

    The loop runs once, or not at all where nobody is excluded: XLA works in place there, which
    spares the usual step a pass over all factors.
    """

    def mask(_: Any, arrays: list[Array]) -> list[Array]:
        return [_masked(excluded, values) for values in arrays]

    return lax.fori_loop(0, jnp.any(excluded).astype(int), mask, arrays)


@_zeroed.defjvp
def _zeroed_jvp(primals: Any, tangents: Any) -> Any:
    # Linear in the arrays; said without the loop, which reverse mode could not go through.
    excluded = primals[0]
    masked = [
        tangent if tangent.dtype == jax.dtypes.float0 else _masked(excluded, tangent)
        for tangent in tangents[1]
    ]
    return _zeroed(*primals), masked


def _masked(excluded: Array, values: Array) -> Array:
    broadcast = excluded.reshape(-1, *(1 for _ in values.shape[1:]))
    return jnp.where(broadcast, jnp.zeros((), values.dtype), values)


def _joined(values: Sequence[Array], slots: Sequence[int], axis: int) -> Array:
    chosen = [values[slot] for slot in slots]
    return chosen[0] if len(chosen) == 1 else jnp.concatenate(chosen, axis=axis)


def _gram(ours: Form, theirs: Form) -> Array:
    ours, theirs = _bare(ours), _bare(theirs)
    structures: list[Any] = [jax.tree.structure(form) for form in (ours, theirs)]
    if type(ours) is not type(theirs) or structures[0] != structures[1]:
        ours, theirs = Dense(ours.materialize()), Dense(theirs.materialize())
    return ours.gram(theirs)  # type: ignore[arg-type]  # of one class, as their structures are


def _bare(form: Any) -> Any:
    """The form without what does not matter to a product with another one."""
    if isinstance(form, Outer):
        return dataclasses.replace(form, precision=None, shared=1)
    if isinstance(form, Rows):
        return dataclasses.replace(form, distinct=False)
    if isinstance(form, Tied):
        return Tied(_bare(form.outer), _bare(form.rows))
    if isinstance(form, Stacked):
        return dataclasses.replace(form, layers=_bare(form.layers))
    return form


def _spread(dim: int, shape: Sequence[int]) -> list[int]:
    """Sizes with the product dim, one for each axis, larger for longer axes."""
    sizes = [1] * len(shape)
    factors, rest, prime = [], dim, 2
    while rest > 1:
        if rest % prime:
            prime += 1
        else:
            factors.append(prime)
            rest //= prime
    for factor in sorted(factors, reverse=True):
        longest = max(range(len(shape)), key=lambda axis: shape[axis] / sizes[axis])
        sizes[longest] *= factor
    return sizes


def total_of(values: Sequence[Array], batch_size: int) -> Array:
    return sum(values, jnp.zeros((batch_size,)))
