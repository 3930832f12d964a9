"""What one example is: its features, outputs, loss and scores, for steps and passes of any task.

A task keeps two functions apart. `outputs(params, example)` is what the model makes of one example
alone. `couple(outputs, batch)` makes losses `[B]` of the outputs of a batch, loss i being that of
row i. `graded` couples trivially: loss i depends on outputs i alone, so that `couple` serves one
example as it serves a batch, and the gradient of loss i is the contribution of row i. Steps and
passes get losses and gradients from `losses`, `gradients` and `norms`; a task whose coupling is not
trivial replaces these three and opens no step or pass.

Three such tasks are planned. A *unit* is one evaluation of an outputs function, with a dropout key
of its own; *rest* are parameters that the coupling itself reads, and units + rest = ∇F.

    listwise     unit: a pair (query, item)
                 outputs(params, pair, *, key) -> score []
                 couple(scores [B], batch) -> losses [B]
                     −y_i log softmax(scores)_i, over the rows with the same batch["list"]
                 rest: none

    contrastive  units: a query and an item, which share parameters; the key is folded for each
                 outputs(params, row, *, key) -> {"query": vector [H], "item": vector [H]}
                 couple(vectors [B, H] of both, batch, *, rest) -> losses [B]
                     −log softmax_i(⟨query_i, item_j⟩ / τ), over all items j of the batch
                 rest: the temperature τ

    sequence     unit: a history of T events
                 outputs(params, history, *, key) -> states [T, H]
                 couple(states [B, T, H], batch, *, rest) -> losses [B]
                     −Σ_t log softmax(⟨state_t, e_j⟩) at the next event, over the batch's items j
                 rest: the items' vectors e_j, as far as the coupling itself reads them
"""

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import numpy as np

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

    Importance asks more of a task than training does: scores of the outputs, a margin, and a model
    that has a probability for every label. The label of an example is `example["label"]`. Functions
    of outputs and an example read nothing else of it, so that `{"label": other}` asks what would
    hold for another label.

    output_scores: the names of the scores that the outputs give. The stage score reads those of
        `importance.OUTPUT_SCORES`.
    """

    output_scores: ClassVar[tuple[str, ...]]

    def loss(self, dropout_key: jax.Array | None = None) -> LossFunction:
        """Gives `(params, example) -> (loss, outputs)` for one example.

        With a `dropout_key` dropout is on, and the example's key is that key folded with its row:
        it depends neither on the batch nor on the number of devices.
        """

        def loss(params: Any, example: Example) -> tuple[jax.Array, Outputs]:
            key = None if dropout_key is None else jax.random.fold_in(dropout_key, example["row"])
            outputs = self.outputs(params, example, key=key)
            return self.couple(outputs, example), outputs

        return loss

    def losses(
        self, params: Any, batch: Batch, *, dropout_key: jax.Array | None = None
    ) -> tuple[jax.Array, Outputs]:
        """The losses `[B]` and outputs of a batch."""
        return jax.vmap(self.loss(dropout_key), in_axes=(None, 0))(params, batch)

    def gradients(
        self, params: Any, batch: Batch, *, dropout_key: jax.Array | None = None
    ) -> tuple[tuple[jax.Array, Outputs], per_example.PerExampleGrads]:
        """The losses `[B]` and outputs of a batch, and each row's gradient, kept in factors."""
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
        """The norms `[B]` of each row's gradient, by leaf if asked for, and the outputs.

        Nothing of the backward pass is kept.
        """
        grad_norms = per_example.grad_norms(self.loss(dropout_key), has_aux=True, per_leaf=per_leaf)
        return grad_norms(params, batch)

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
    def margin(self, outputs: Outputs, batch: Batch) -> jax.Array:
        """The margin `[B]` that a history of training keeps: positive where the label wins."""

    @abc.abstractmethod
    def likeliest(self, outputs: Outputs) -> jax.Array:
        """The label that the model finds most likely."""

    @abc.abstractmethod
    def drawn(self, outputs: Outputs, key: jax.Array) -> jax.Array:
        """A label drawn from the model's own probabilities."""

    @abc.abstractmethod
    def output_function(self, outputs: Outputs, example: Example) -> jax.Array:
        """f, the scalar of each example alone that the influence passes differentiate."""

    @abc.abstractmethod
    def residual(self, value: jax.Array) -> jax.Array:
        """−∂ℓ/∂f at a value of f, so that ∇ℓ = −residual · ∇f."""

    @abc.abstractmethod
    def embed(self, params: Any, batch: Batch) -> jax.Array:
        """The vectors `[B, H]` that the model's head is given, dropout off."""

    @abc.abstractmethod
    def head(self, params: Any) -> str:
        """The name of the last layer, as `importance.gradients.layer_norms` names layers."""

    @abc.abstractmethod
    def predictions(self, outputs: Outputs) -> dict[str, jax.Array]:
        """What the evaluation reads of a batch's outputs, by name.

        Stages read `probabilities` `[B, K]`, those of the labels.
        """

    @abc.abstractmethod
    def columns(self, outputs: Outputs) -> dict[str, jax.Array]:
        """The predictions as columns `[B]`, named as tables name them.

        Stages read `probability_0` to `probability_<K-1>`.
        """

    @abc.abstractmethod
    def from_columns(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The predictions that `columns` were made of, taken out of the columns of a table."""

    @abc.abstractmethod
    def rank(self, predictions: Mapping[str, np.ndarray]) -> np.ndarray:
        """The scores `[N]`, float64, by which the items of a query are ranked."""
