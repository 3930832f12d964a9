"""Losses that couple examples: the exact contribution of every unit to the gradient.

Where parameters act only through the outputs s_u(θ) of separate evaluations, the units, and a
coupling F makes one number of all outputs (a softmax over a list, in-batch negatives),

    ∇F = Σ_u c_u,    c_u = (∂F/∂s_u)ᵀ ∇s_u

and c_u, the contribution of unit u, is exact, and known from the one pass that gives ∇F: taps in
the function that makes the outputs, one backward pass through the coupling. What the coupling reads
of parameters itself, a temperature say, is `rest`, with a gradient of its own.

| quantity                   | result                                                             |
|----------------------------|--------------------------------------------------------------------|
| a unit that F leaves out   | a contribution and a norm of exactly 0 (padding)                   |
| a list's norm              | of its summed contributions; errors relative to Σ ‖c_u‖, also where |
|                            | they cancel                                                        |
| units that read each other | refused: each is a function of params and its own arguments alone  |
| weighted contributions     | a direction; it need not be the gradient of any loss               |
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from sie_jax.per_example.call import Call, Layout, lay_out, loss_and_aux
from sie_jax.per_example.gradients import PerExampleGrads
from sie_jax.per_example.units import SCALAR, OutputsFns, calls_of, check_rest, functions_of


@jax.tree_util.register_pytree_node_class
class Contributions:
    """What each unit contributes to the gradient of a coupled loss, kept as factors.

    A pytree, as `PerExampleGrads`. "Each function's": the thing itself where `outputs_fns` was one
    function, and a tuple with one entry for each where it was a tuple.

    Lists: the U_f units of every function are `number` blocks of U_f / number, list after list, and
    list n is block n of each function: a query's pairs, or a query and its items.
    """

    def __init__(self, units: tuple[PerExampleGrads, ...], rest: Any, single: bool):
        self._units = units
        self.rest = rest
        self._single = single

    def tree_flatten(self):
        return (self._units, self.rest), (self._single,)

    @classmethod
    def tree_unflatten(cls, static, children):
        return cls(*children, *static)

    @property
    def units(self) -> Any:
        """Each function's `PerExampleGrads` of its units."""
        return self._each(self._units)

    def norms(self) -> Any:
        """‖c_u‖ over all parameters, each function's [U_f]."""
        return self._each([grads.norms() for grads in self._units])

    def weighted_sum(self, weights: Any) -> Any:
        """Σ_u w_u c_u, like params, without `rest`; weights are each function's [U_f].

        A unit of weight 0 contributes exactly 0, even if its contribution is NaN. The result need
        not be any loss's gradient: to weight a term of the loss is another thing, and so is to
        leave a unit out, for F then has other cotangents for all the others.

        Raises:
          ValueError: the weights are not each function's [U_f].
        """
        weights = (weights,) if self._single else tuple(weights)
        if len(weights) != len(self._units):
            raise ValueError(
                f"weighted_sum: there are {len(weights)} arrays of weights; pass one for each of "
                f"the {len(self._units)} outputs functions"
            )
        sums = [grads.weighted_sum(own) for grads, own in zip(self._units, weights, strict=True)]
        return functools.reduce(lambda one, other: jax.tree.map(jnp.add, one, other), sums)

    def total(self) -> Any:
        """Σ_u c_u, like params: ∇F but for what the coupling reads itself, which is `rest`."""
        return self.weighted_sum(self._each([jnp.ones(g.batch_size) for g in self._units]))

    def dot(self, tree: Any) -> Any:
        """⟨c_u, v⟩ for one direction v given like params, each function's [U_f].

        Raises:
          ValueError: the tree's structure is not that of params.
        """
        return self._each([grads.dot(tree) for grads in self._units])

    def gram(self) -> Array:
        """⟨c_u, c_v⟩, [U, U], U = Σ_f U_f: the first function's units first, then the next one's.

        Products of units with their own list alone are `agreement`, which is far cheaper.
        """
        count = len(self._units)
        blocks: list[list[Any]] = [[None] * count for _ in range(count)]
        for row, ours in enumerate(self._units):
            for column in range(row, count):
                blocks[row][column] = ours.gram(self._units[column])
                if column > row:
                    blocks[column][row] = blocks[row][column].T
        return jnp.block(blocks)

    def lists(self, number: int) -> PerExampleGrads:
        """The gradients of `number` lists, each the sum of its units' contributions.

        Its `norms()` are the lists' norms. Where weights go by list, its `weighted_sum` gives the
        update for little: the products have been made. Memory and accuracy: as
        `PerExampleGrads.grouped`.

        Raises:
          ValueError: `number` does not divide each U_f.
        """
        return self._units[0].grouped(number, *self._units[1:])

    def agreement(self, number: int) -> Any:
        """⟨c_u, the gradient of u's list⟩, each function's [U_f].

        Over a list's units they add up to the square of its norm; a negative one says that the unit
        pulls against its list. Inside one `jit`, what `lists` made is not made again.

        Raises:
          ValueError: `number` does not divide each U_f.
        """
        lists = self.lists(number)
        return self._each([grads.agreement(lists) for grads in self._units])

    def _each(self, values: Sequence[Any]) -> Any:
        return values[0] if self._single else tuple(values)


def coupled_value_and_grad(
    outputs_fns: OutputsFns, coupling: Callable[..., Any], *, has_aux: bool = False
) -> Callable[..., Any]:
    """The value of a coupled loss and every unit's exact contribution, from one pass.

    Args:
      outputs_fns: `(params, *unit) -> outputs`, which sees ONE unit; outputs are any pytree of
        floating arrays. Or a tuple of such functions of the same params, for units of several
        kinds: a query tower and an item tower, each with its own lengths.
      coupling: `(outputs, rest, *arguments) -> F`, one floating scalar, or `(F, aux)` where
        `has_aux`. Outputs come with a leading axis U_f; a tuple of them where there are several
        functions. Labels and masks are arguments, by place or by keyword.
      has_aux: whether `coupling` returns auxiliary data beside F.

    Returns:
      `(params, units, rest, *arguments) -> (F, Contributions)`, or `((F, aux), Contributions)`.

      units: the arguments of one outputs function, a tuple of trees with a leading axis U_f; a
      tuple of such tuples where there are several functions. Dropout keys are among them, one for
      each unit. rest: a pytree of the floating parameters that the coupling itself reads; None if
      there are none; it may be params. `Contributions.rest` is ∂F/∂rest with all outputs fixed.

      Guarantee: `total()` is the gradient of F with respect to params through the outputs; where
      rest is params, `total()` and `rest` add up to ∇F.

    Exact, and as dear in memory, as `value_and_grad` for a loss of one unit.

    Raises:
      ValueError: parameters, outputs or rest that are not floating, an F that is not a scalar,
        units of one function that disagree on U_f, or an outputs function that reads other units
        by a collective (batch statistics).

    Example: a softmax over lists of 16 pairs, `scores` of one pair:

        def coupling(scores, rest, gains):
            return jnp.sum(rax.softmax_loss(scores.reshape(-1, 16), gains, reduce_fn=None))

        loss, found = coupled_value_and_grad(score, coupling)(params, (ids, keys), None, gains)
        weights = policy(found.norms())
        update = found.weighted_sum(weights)
    """
    functions, single = functions_of(outputs_fns)

    def wrapped(params: Any, units: Any, rest: Any, *arguments: Any, **keywords: Any):
        calls = calls_of(functions, single, params, units)
        check_rest(rest)
        layouts = [lay_out(call.sites, call.leaves) for call in calls]
        for call, layout in zip(calls, layouts, strict=True):
            call.warn_of_large(layout)

        def whole(taps: list[Any], dense: list[Any], rest: Any):
            each = zip(calls, layouts, taps, dense, strict=True)
            outputs, data = zip(*(_outputs(*own) for own in each), strict=True)
            result = coupling(outputs[0] if single else outputs, rest, *arguments, **keywords)
            value, aux = loss_and_aux(result, has_aux, SCALAR)
            return value, (aux, data)

        taps, dense = [], []
        for call, layout in zip(calls, layouts, strict=True):
            size = call.batch_size
            zeros = layout.zeros(call.sites.program)
            taps.append([jnp.zeros((size, *zero.shape), zero.dtype) for zero in zeros])
            own = [call.leaves[index] for index in layout.dense]
            dense.append([jnp.broadcast_to(leaf, (size, *leaf.shape)) for leaf in own])
        gradient = jax.value_and_grad(whole, argnums=(0, 1, 2), has_aux=True)
        (value, (aux, data)), (cotangents, dense, rest) = gradient(taps, dense, rest)
        grads = []
        for call, layout, *found in zip(calls, layouts, data, cotangents, dense, strict=True):
            captured, of_taps, arrays = found
            standard = jax.vmap(layout.standard_cotangents, axis_size=call.batch_size)(of_taps)
            factors = tuple(captured), tuple(standard), tuple(arrays)
            grads.append(PerExampleGrads(*factors, call.batch_size, layout.leaves, call.treedef))
        contributions = Contributions(tuple(grads), rest, single)
        return ((value, aux) if has_aux else value), contributions

    return wrapped


def _outputs(call: Call, layout: Layout, taps: list[Array], dense: list[Array]) -> tuple[Any, Any]:
    """The outputs of all units of one function, and their data in standard form."""

    def one(mapped: list[Any], taps: list[Array], dense: list[Array]):
        results, captured = call.run(mapped, layout, taps, dense)
        return results, layout.standard_data(captured)

    results, data = jax.vmap(one)(call.mapped, taps, dense)
    return call.result_tree.unflatten(results), data
