"""Weights learned while training: a function of the scores that follows a validation gradient.

The weights of a batch are w_i = φ_i / Σ_j φ_j with φ_i = sigmoid(θ_0 + Σ_k θ_k x_ik), x_ik a
standardised score. One dot product per example tells to first order what a step does to the
validation loss:

    a_i = ⟨∇ℓ_i, ∇L_val⟩        L_val(params − η Σ_i w_i ∇ℓ_i) ≈ L_val(params) − η Σ_i w_i a_i

so that dL_val/dθ = −η Σ_i a_i ∂w_i/∂θ, and an Adam of its own moves θ down it. All of it comes from
the one forward and backward pass that trains the model, and a plain gradient on the validation
batch.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from sie_jax import importance
from sie_jax.data.loading import Arrays, PlannedBatches
from sie_jax.devices import mesh as meshes
from sie_jax.tasks.task import LabelledTask
from sie_jax.training import state as states
from sie_jax.training import steps
from sie_jax.training.state import TrainState

PREFIX = "validation_"
# of the scores' running mean and spread: the last seventy batches make half of them
DECAY = 0.99
# in standard deviations: a standardised score beyond it counts as it, so that no outlier dominates
BOUND = 3.0

ADAM = optax.scale_by_adam()


class Moments(NamedTuple):
    """Decayed sums over the scores seen so far.

    rows: their number. total: float32 `[F]`, their sum. squares: float32 `[F]`, the sum of their
    squared distances to the mean at the time.
    """

    rows: jax.Array
    total: jax.Array
    squares: jax.Array


class Weighting(NamedTuple):
    """What is learned: θ float32 `[1 + F]`, its Adam's state, and the moments of the scores."""

    theta: jax.Array
    adam: Any
    moments: Moments


class LearnedState(NamedTuple):
    """The `opt_state` of a run with learned weights: the model's optimiser, and the weighting."""

    optimizer: Any
    weighting: Weighting


class WithValidation(PlannedBatches):
    """Training batches, each joined with a validation batch whose arrays are `validation_<name>`.

    Item i joins training batch i with validation batch i mod M, M being the number of validation
    batches: a pure function of i, so that a position is still one integer. Length and epochs are
    those of the training batches. Give `validation` one bucket of lengths, since a step is compiled
    for each pair of lengths that meet. Its batches may have another size, which the mesh must
    divide too.

    Raises:
      ValueError: there is no validation batch.
    """

    def __init__(self, training: PlannedBatches, validation: PlannedBatches) -> None:
        if not len(validation):
            raise ValueError("there is no validation batch to learn the weights from: give one")
        self._training, self._validation = training, validation
        self.batches_per_epoch = training.batches_per_epoch
        self.batch_size = training.batch_size
        self.batches_at_once = training.batches_at_once
        self.longest = training.longest

    def __len__(self) -> int:
        return len(self._training)

    def examples(self, index: int) -> int:
        """How many real rows a batch has, those of its validation batch included."""
        beside = self._validation.examples(index % len(self._validation))
        return self._training.examples(index) + beside

    def read(self, indices: Sequence[int]) -> list[Arrays]:
        beside = self._validation.read([index % len(self._validation) for index in indices])
        return [
            batch | {PREFIX + name: v for name, v in validation.items()}
            for batch, validation in zip(self._training.read(indices), beside, strict=True)
        ]


def create(
    params: Any,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    seed: int,
    scores: tuple[str, ...],
) -> TrainState:
    """A state at step 0 for `learned_step` with the same `scores`. θ is 0: equal weights."""
    state = states.create(params, optimizer, mesh, seed=seed)
    features = jnp.zeros(len(scores))
    theta = jnp.zeros(1 + len(scores))
    weighting = Weighting(theta, ADAM.init(theta), Moments(jnp.zeros(()), features, features))
    # each leaf gets a buffer of its own, since the step gives them all up
    weighting = meshes.place(mesh, weighting)
    return state._replace(opt_state=LearnedState(state.opt_state, weighting))


@functools.cache
def learned_step(
    task: LabelledTask,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    scores: tuple[str, ...],
    learning_rate: float = 0.01,
) -> steps.Step:
    """The step on Σ_i w_i ∇ℓ_i, w_i = φ(scores_i; θ) / Σ_j φ_j, after which θ is improved.

    In order, it computes the scores of the batch, with the step's dropout on; their standardised
    features (`features`); the weights by the present θ, so that the first step is a uniform one;
    the update of the parameters; a_i with the gradient of the mean validation loss at the
    parameters before the update, dropout off; and one step of Adam for θ down `theta_gradient`.
    Positive agreement means that a step on the example lowers the validation loss. It raises what φ
    gives to scores like the example's.

    This is the one-step lookahead of Ren et al. 2018 ("Learning to Reweight Examples for Robust
    Deep Learning"), who make each example's weight of max(a_i, 0) alone and forget it
    afterwards, and the learned function of the loss of Shu et al. 2019 ("Meta-Weight-Net"),
    with three differences: φ is monotone in every score and has one parameter
    for each and a threshold, where theirs is a network of 100 hidden units; the validation gradient
    is taken before the lookahead step and not after it, which is the same to first order in η; and
    the new θ serves the next batch, not this one. η itself is left out of the gradient, as Adam
    divides by the gradient's size.

    The weights are as good as the validation labels. If these are as noisy as the training labels,
    a_i is agreement with a noisy objective. Noise that validation and training share (one
    annotator's habit, one click model) is then learned as if it were right; only noise that
    averages out over a batch is recognised. The same validation pairs also look better afterwards
    than new ones would: measure on others.

    Cost: 3 forward-equivalents per training example and 3 per validation example, that is
    3 + 3 B_val/B per training example.

    Args:
      scores: which of importance.SCORES φ sees, one to three; each as its hardness.
      learning_rate: of Adam for θ, constant. The log-odds of φ move by about as much per step and
        standard deviation of a score, at most.

    Returns:
      `(state, batch) -> (state, metrics)`. The state comes from `create`, the batch from
      `WithValidation`. Padding, of either kind, contributes exactly 0. Metrics are those of the
      other steps, `validation_loss`, `agreement` (Σ_i w_i a_i: how fast the step's own direction
      lowers the validation loss), and θ as `theta_threshold` and `theta_<score>`. A negative
      `theta_<score>` takes weight from hard examples.

    Raises:
      ValueError: no score, or one that is not in importance.SCORES.
    """
    unknown = [name for name in scores if name not in importance.SCORES]
    if unknown or not scores:
        raise ValueError(f"scores are {scores}: give some of {importance.SCORES}")

    def step(state: TrainState, batch: steps.Batch) -> tuple[TrainState, steps.Metrics]:
        training = {name: v for name, v in batch.items() if not name.startswith(PREFIX)}
        validation = {
            name.removeprefix(PREFIX): v for name, v in batch.items() if name.startswith(PREFIX)
        }
        where = training["mask"]
        inner, weighting = state.opt_state
        found, gradients = task.gradients(state.params, training, dropout_key=steps.step_key(state))
        columns = [
            gradients.norms() if name == "grad_norm" else task.score(name, found[1], training)
            for name in scores
        ]
        hardness = jnp.stack(
            [importance.hardness(*pair) for pair in zip(scores, columns, strict=True)], 1
        )
        moments, x = features(weighting.moments, hardness, where=where)
        weights = weights_of(weighting.theta, x, hardness, where=where)
        gradient = gradients.weighted_sum(weights)

        validation_loss, direction = jax.value_and_grad(_mean_loss)(state.params, task, validation)
        agreement = gradients.dot(direction)
        slope = theta_gradient(weighting.theta, x, weights, agreement)
        moves, adam = ADAM.update(slope, weighting.adam)
        theta = weighting.theta - learning_rate * moves

        before = state._replace(opt_state=inner)
        updated, metrics = steps.update(task, before, optimizer, gradient, found, weights, training)
        metrics |= {
            "validation_loss": validation_loss,
            "agreement": jnp.sum(jnp.where(weights > 0, weights * agreement, 0.0)),
            "theta_threshold": theta[0],
            **{f"theta_{name}": theta[1 + i] for i, name in enumerate(scores)},
        }
        learned = LearnedState(updated.opt_state, Weighting(theta, adam, moments))
        return updated._replace(opt_state=learned), metrics

    return steps.compiled(step, mesh)


def features(
    moments: Moments, hardness: Float[Array, "n f"], *, where: Bool[Array, " n"]
) -> tuple[Moments, Float[Array, "n f"]]:
    """x_ik = (log(1 + s_ik) − mean_k) / deviation_k, within ±BOUND, and the moments after these.

    Mean and standard deviation are running ones over all batches so far, this one included. The
    weight of a batch falls by DECAY at every step. A batch thus has little influence on its own
    scale, and a batch of hard examples is recognised as one. The logarithm shortens a heavy tail,
    and changes scores below 1 little.

    hardness: `[N, F]` ≥ 0, high means hard. Rows outside `where`, or with a score that is not
    finite, have features 0 and do not change the moments. Scores that differ by less than 1e-4 of
    their size count as equal, since rounding could explain the difference.
    """
    usable = where & jnp.all(jnp.isfinite(hardness), 1)
    inside = usable[:, None]
    values = jnp.log1p(jnp.where(inside, hardness, 0.0))
    rows = DECAY * moments.rows + jnp.sum(usable)
    total = DECAY * moments.total + jnp.sum(jnp.where(inside, values, 0.0), 0)
    mean = total / jnp.maximum(rows, 1)
    centred = jnp.where(inside, values - mean, 0.0)
    squares = DECAY * moments.squares + jnp.sum(centred**2, 0)
    deviation = jnp.sqrt(squares / jnp.maximum(rows, 1))
    standard = centred / jnp.maximum(deviation, 1e-4 * (1 + mean))
    return Moments(rows, total, squares), jnp.clip(standard, -BOUND, BOUND)


def weights_of(
    theta: Float[Array, " f+1"],
    x: Float[Array, "n f"],
    hardness: Float[Array, "n f"],
    *,
    where: Bool[Array, " n"],
) -> Float[Array, " n"]:
    """w_i = φ_i / Σ_j φ_j, φ_i = sigmoid(θ_0 + Σ_k θ_k x_ik), normalised as every policy's φ is."""
    phi = jax.nn.sigmoid(theta[0] + x @ theta[1:])
    return importance.policies.normalise(phi, scores=jnp.sum(hardness, 1), where=where)


def theta_gradient(
    theta: Float[Array, " f+1"],
    x: Float[Array, "n f"],
    weights: Float[Array, " n"],
    agreement: Float[Array, " n"],
) -> Float[Array, " f+1"]:
    """−Σ_i a_i ∂w_i/∂θ = −Σ_i w_i (a_i − ā) (1 − φ_i) (1, x_i), ā = Σ_i w_i a_i.

    From ∂w_i/∂θ = w_i (∂log φ_i/∂θ − Σ_j w_j ∂log φ_j/∂θ) and ∂log φ_i/∂θ = (1 − φ_i) (1, x_i).
    At θ = 0 the threshold's own part is 0: equal weights do not depend on it.
    """
    inputs = jnp.concatenate([jnp.ones_like(x[:, :1]), x], 1)
    shrinking = jax.nn.sigmoid(-(inputs @ theta))
    # a row of weight 0 has no influence, even if its agreement is NaN
    agreement = jnp.where(weights > 0, agreement, 0.0)
    surplus = weights * (agreement - jnp.sum(weights * agreement))
    return -((surplus * shrinking) @ inputs)


def _mean_loss(params: Any, task: LabelledTask, batch: steps.Batch) -> Float[Array, ""]:
    losses, _ = task.losses(params, batch)
    count = jnp.maximum(jnp.sum(batch["mask"]), 1)
    return jnp.sum(jnp.where(batch["mask"], losses, 0.0)) / count
