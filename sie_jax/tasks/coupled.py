"""Tasks whose losses read the outputs of several rows, and what each row contributes."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from sie_jax import per_example
from sie_jax.tasks.task import Batch, Example, LabelledTask, Outputs, key_of


class CoupledTask(LabelledTask):
    """A labelled task with losses of lists, or of whole batches.

    With F = Σ_i ℓ_i and s_i the outputs of row i, its contribution is (∂F/∂s_i)ᵀ ∇s_i. Weights
    multiply contributions: a row of weight 0 moves no parameter by its own outputs, and is still
    there for the others. That need not be any loss's gradient. Weights of a batch sum to 1 over its
    pairs.

    least: the rows that a query must have, for its list to have a loss.
    """

    least: ClassVar[int]
    output_scores: ClassVar[tuple[str, ...]] = ("loss",)
    meets: ClassVar[tuple[str, ...]] = ("outputs", "gradients", "embeddings")

    def score(self, name: str, outputs: Outputs, batch: Batch) -> jax.Array:
        """Its one score is the loss."""
        assert name in self.output_scores
        return self.couple(outputs, batch)

    def slopes(self, outputs: Outputs, batch: Batch) -> tuple[Outputs, jax.Array]:
        """∂F/∂s_i of each row, like the outputs, and ℓ_i `[B]`."""

        def total(outputs: Outputs) -> tuple[jax.Array, jax.Array]:
            losses = self.couple(outputs, batch)
            return jnp.sum(losses), losses

        (_, losses), slopes = jax.value_and_grad(total, has_aux=True)(outputs)
        return slopes, losses

    def gradients(
        self, params: Any, batch: Batch, *, dropout_key: jax.Array | None = None
    ) -> tuple[tuple[jax.Array, Outputs], per_example.PerExampleGrads]:
        def outputs(params: Any, example: Example) -> Outputs:
            return self.outputs(params, example, key=key_of(example, dropout_key))

        def coupling(outputs: Outputs, rest: None) -> tuple[jax.Array, Any]:
            losses = self.couple(outputs, batch)
            return jnp.sum(losses), (losses, outputs)

        coupled = per_example.coupled_value_and_grad(outputs, coupling, has_aux=True)
        (_, found), contributions = coupled(params, (batch,), None)
        return found, contributions.units

    def norms(
        self,
        params: Any,
        batch: Batch,
        *,
        dropout_key: jax.Array | None = None,
        per_leaf: bool = False,
    ) -> tuple[Any, Outputs]:
        outputs = self.outputs_of(params, batch, dropout_key)
        slopes, _ = self.slopes(outputs, batch)

        def held(params: Any, example: Example, slopes: Outputs) -> jax.Array:
            made = self.outputs(params, example, key=key_of(example, dropout_key))
            return _product(slopes, made)

        return per_example.grad_norms(held, per_leaf=per_leaf)(params, batch, slopes), outputs

    def weighted_gradient(
        self, params: Any, batch: Batch, weights: jax.Array, dropout_key: jax.Array
    ) -> tuple[Any, tuple[jax.Array, Outputs]]:
        def objective(params: Any) -> tuple[jax.Array, tuple[jax.Array, Outputs]]:
            outputs = self.outputs_of(params, batch, dropout_key)
            slopes, losses = self.slopes(jax.lax.stop_gradient(outputs), batch)
            products = jax.vmap(_product)(slopes, outputs)
            return jnp.sum(jnp.where(batch["mask"], weights * products, 0.0)), (losses, outputs)

        (_, found), gradient = jax.value_and_grad(objective, has_aux=True)(params)
        return gradient, found


def _product(slopes: Outputs, outputs: Outputs) -> jax.Array:
    """⟨∂F/∂s, s⟩ of one row."""
    products = jax.tree.map(lambda slope, output: jnp.sum(slope * output), slopes, outputs)
    return sum(jax.tree.leaves(products), jnp.zeros(()))
