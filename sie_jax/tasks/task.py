"""What one example is: its features, outputs, loss and scores, for steps and passes of any task.

A task keeps two functions apart. `outputs(params, example)` is what the model makes of one example
alone. `couple(outputs, batch)` makes losses `[B]` of the outputs of a batch. Where loss i reads
outputs i alone, the task is a `SeparateTask`: its coupling serves one example as it serves a batch,
and the gradient of loss i is the contribution of row i. Where losses read several outputs, as those
of lists do, a row is a *unit*: its contribution is (∂F/∂s_i)ᵀ ∇s_i, with F = Σ_i ℓ_i and s_i its
outputs, and the contributions of all rows add up to ∇F. Steps and passes get losses and gradients
from `losses`, `gradients`, `norms` and `weighted_gradient`, and open none of this.
"""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from sie_jax import per_example

Example = dict[str, jax.Array]
"""One row of a batch: the task's features, `label`, `row`, and what else the data has."""

Batch = dict[str, jax.Array]
Outputs = Any
LossFunction = Callable[[Any, Example], tuple[jax.Array, Outputs]]


class Task(abc.ABC):
    """An example's features, outputs and loss.

    A task can be hashed, since compiled steps and passes are cached by it.

    features: the names of the arrays that the model is given of an example.
    """

    features: ClassVar[tuple[str, ...]]

    @abc.abstractmethod
    def outputs(self, params: Any, example: Example, *, key: jax.Array | None = None) -> Outputs:
        """What the model makes of one example. Dropout is on where there is a key."""

    @abc.abstractmethod
    def couple(self, outputs: Outputs, batch: Batch) -> jax.Array:
        """The losses `[B]` of a batch's outputs, or one loss if the rows have none of their own."""


class LabelledTask(Task):
    """A task whose examples have a label that could be another one, and may be wrong.

    The label of an example is `example["label"]`. Functions of outputs and an example read nothing
    else of it, so that `{"label": other}` asks what would hold for another label.

    output_scores: the names of the scores that the outputs give. The stage score reads those of
        `importance.OUTPUT_SCORES`.
    meets: those of `importance.NEEDS` that can be met for this task.
    norms_cost: the forward-equivalents of `norms`: a forward pass, a backward pass of norms, and a
        further forward pass where the outputs of all rows have to be known first.
    """

    output_scores: ClassVar[tuple[str, ...]]
    meets: ClassVar[tuple[str, ...]]
    norms_cost: ClassVar[int] = 2

    def losses(
        self, params: Any, batch: Batch, *, dropout_key: jax.Array | None = None
    ) -> tuple[jax.Array, Outputs]:
        """The losses `[B]` and outputs of a batch.

        With a `dropout_key` dropout is on, and the example's key is that key folded with its row:
        it depends neither on the batch nor on the number of devices.
        """
        outputs = self.outputs_of(params, batch, dropout_key)
        return self.couple(outputs, batch), outputs

    def outputs_of(self, params: Any, batch: Batch, dropout_key: jax.Array | None) -> Outputs:
        """The outputs of each row of a batch."""

        def one(params: Any, example: Example) -> Outputs:
            return self.outputs(params, example, key=key_of(example, dropout_key))

        return jax.vmap(one, in_axes=(None, 0))(params, batch)

    @abc.abstractmethod
    def gradients(
        self, params: Any, batch: Batch, *, dropout_key: jax.Array | None = None
    ) -> tuple[tuple[jax.Array, Outputs], per_example.PerExampleGrads]:
        """The losses `[B]` and outputs of a batch, and each row's contribution, kept in factors."""

    @abc.abstractmethod
    def norms(
        self,
        params: Any,
        batch: Batch,
        *,
        dropout_key: jax.Array | None = None,
        per_leaf: bool = False,
    ) -> tuple[Any, Outputs]:
        """The norms `[B]` of each row's contribution, by leaf if asked for, and the outputs.

        Nothing of the backward pass is kept.
        """

    @abc.abstractmethod
    def weighted_gradient(
        self, params: Any, batch: Batch, weights: jax.Array, dropout_key: jax.Array
    ) -> tuple[Any, tuple[jax.Array, Outputs]]:
        """Σ_i w_i times row i's contribution, over the real rows (`batch["mask"]`), by one plain
        backward pass; and the losses `[B]` and the outputs.
        """

    @abc.abstractmethod
    def rematerialises(self, params: Any) -> bool:
        """Whether the model computes parts of its forward pass twice in order to save memory."""

    @property
    @abc.abstractmethod
    def num_labels(self) -> int:
        """How many labels there are: 0, 1, … in ascending order."""

    @abc.abstractmethod
    def score(self, name: str, outputs: Outputs, batch: Batch) -> jax.Array:
        """One of `output_scores`, `[B]`."""

    @abc.abstractmethod
    def embed(self, params: Any, batch: Batch) -> jax.Array:
        """The vectors `[B, H]` that the model's head is given, dropout off."""

    @abc.abstractmethod
    def head(self, params: Any) -> str:
        """The name of the last layer, as `importance.gradients.layer_norms` names layers."""

    @abc.abstractmethod
    def columns(self, outputs: Outputs) -> dict[str, jax.Array]:
        """What is predicted of each row, as columns `[B]` named as tables name them.

        They are `probability_0` to `probability_<K-1>` where there are classes, and `relevance`, by
        which items are ranked, where there are none (`evaluation.from_columns`).
        """


class SeparateTask(LabelledTask):
    """A labelled task in which the loss of a row reads the outputs of that row alone."""

    def loss(self, dropout_key: jax.Array | None = None) -> LossFunction:
        """Gives `(params, example) -> (loss, outputs)` for one example; the key as in `losses`."""

        def loss(params: Any, example: Example) -> tuple[jax.Array, Outputs]:
            outputs = self.outputs(params, example, key=key_of(example, dropout_key))
            return self.couple(outputs, example), outputs

        return loss

    def gradients(
        self, params: Any, batch: Batch, *, dropout_key: jax.Array | None = None
    ) -> tuple[tuple[jax.Array, Outputs], per_example.PerExampleGrads]:
        value_and_grad = per_example.value_and_grad(self.loss(dropout_key), has_aux=True)
        return value_and_grad(params, batch)

    def norms(
        self,
        params: Any,
        batch: Batch,
        *,
        dropout_key: jax.Array | None = None,
        per_leaf: bool = False,
    ) -> tuple[Any, Outputs]:
        grad_norms = per_example.grad_norms(self.loss(dropout_key), has_aux=True, per_leaf=per_leaf)
        return grad_norms(params, batch)

    def weighted_gradient(
        self, params: Any, batch: Batch, weights: jax.Array, dropout_key: jax.Array
    ) -> tuple[Any, tuple[jax.Array, Outputs]]:
        def objective(params: Any) -> tuple[jax.Array, tuple[jax.Array, Outputs]]:
            losses, outputs = self.losses(params, batch, dropout_key=dropout_key)
            return jnp.sum(jnp.where(batch["mask"], weights * losses, 0.0)), (losses, outputs)

        (_, found), gradient = jax.value_and_grad(objective, has_aux=True)(params)
        return gradient, found


class ScalarTask(SeparateTask):
    """A task whose loss reads one scalar of each example."""

    @abc.abstractmethod
    def output_function(self, outputs: Outputs, example: Example) -> jax.Array:
        """f, the scalar of each example alone that the influence passes differentiate."""

    @abc.abstractmethod
    def residual(self, value: jax.Array) -> jax.Array:
        """−∂ℓ/∂f at a value of f, so that ∇ℓ = −residual · ∇f."""


class ClassificationTask(ScalarTask):
    """A task whose outputs give a probability for every label."""

    @abc.abstractmethod
    def margin(self, outputs: Outputs, batch: Batch) -> jax.Array:
        """The margin `[B]` that a history of training keeps: positive where the label wins."""

    @abc.abstractmethod
    def likeliest(self, outputs: Outputs) -> jax.Array:
        """The label that the model finds most likely."""

    @abc.abstractmethod
    def drawn(self, outputs: Outputs, key: jax.Array) -> jax.Array:
        """A label drawn from the model's own probabilities."""


def key_of(example: Example, dropout_key: jax.Array | None) -> jax.Array | None:
    """The dropout key of an example: the batch's folded with its row; None without one."""
    return None if dropout_key is None else jax.random.fold_in(dropout_key, example["row"])
