"""Scores read off the per-example gradient: GraNd, variance, norms by layer, Adam's step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import FlattenedIndexKey, GetAttrKey, SequenceKey
from jaxtyping import Array, Float

from sie_jax.importance.precision import wide


def grand(norms: Float[Array, "c n"]) -> Float[Array, " n"]:
    """GraNd, (1/C) Σ_c ‖∇ℓ_c,i‖ ≥ 0, over C seeds or checkpoints. High: hard or mislabelled.

    Paul et al. 2021 ("Deep Learning on a Data Diet", definition 2.1) define it as the expectation
    over initialisations and steps up to t; here it is the mean over the given models. If a norm is
    NaN or infinite, so is the score of its example. Cost: 2 forward-equivalents per
    example and model for the norms (a forward pass, a norms-only backward).
    """
    return jnp.mean(wide(norms), axis=0)


def gradient_variance(projections: Float[Array, "c n d"]) -> Float[Array, " n"]:
    """(1/C) Σ_c ‖φ_c,i − φ̄_i‖² ≥ 0, φ̄_i the mean over C checkpoints. High: learned late, or hard.

    φ_c,i are the gradients of example i's loss, projected with ONE key for all checkpoints: P is
    then linear and the same for all, and E ‖P x‖² = ‖x‖² over keys makes this an unbiased estimate
    of the variance of the full gradient over checkpoints. 0 for one checkpoint.

    In the spirit of VoG (Agarwal et al. 2022, "Estimating Example Difficulty using Variance of
    Gradients"), which takes the gradient of the true class's logit with respect to the input's
    pixels, averages the standard deviation over them, and normalises by class. Text has no pixels:
    here it is the gradient of the loss with respect to the parameters, and nothing is normalised.
    Cost: 3 forward-equivalents per example and checkpoint.
    """
    projections = wide(projections)
    deviations = projections - jnp.mean(projections, axis=0)
    return jnp.mean(jnp.sum(deviations**2, axis=-1), axis=0)


def layer_norms(per_leaf: Any) -> dict[str, Float[Array, " b"]]:
    """‖∇ℓ_i‖ by layer, √(Σ over its leaves of ‖·‖²), by name in the order of the first leaf.

    `per_leaf`: a tree of `[B]`, from `grads.norms(per_leaf=True)`. The squares of all layers add up
    to the squared norm of the whole gradient. High: that layer would change much.

    A leaf's layer is read off its path: `embeddings` where a component names an embedding; else up
    to the first number (`bert.layers.0`); else at most the first two components of the module that
    holds it (`bert.pooler`, `classifier`). A leaf that a scan takes apart counts as one layer.

    The classifier's norm is the exact last-layer norm ‖p − onehot(y)‖₂ √(‖h‖² + 1), where h is the
    classifier's input and the 1 is for its bias. The upper bound of Katharopoulos and Fleuret 2018
    ("Not All Samples Are Created Equal", equation 16) on the norm of the whole gradient is a
    constant times the norm of the loss gradient at the last layer's outputs, which for our head is
    EL2N: it ranks examples as `outputs.el2n` does.
    """
    squares: dict[str, Array] = {}
    for path, norms in jax.tree_util.tree_flatten_with_path(per_leaf)[0]:
        name = _layer(path)
        squares[name] = squares.get(name, jnp.zeros(())) + wide(norms) ** 2
    return {name: jnp.sqrt(square) for name, square in squares.items()}


def preconditioned_norms(
    loss_fn: Callable[..., Any],
    second_moment: Any,
    *,
    epsilon: float,
    chunk_size: int,
    has_aux: bool = False,
) -> Callable[[Any, Any], Float[Array, " b"]]:
    """‖∇ℓ_i / (√ν + ε)‖, the norm of the step that Adam would take from example i alone; exact.

    High: hard, in the coordinates that the optimiser moves in. A gradient divided coordinate by
    coordinate is not a product of factors. So the gradients of `chunk_size` examples are
    materialised at a time, which takes chunk_size times the parameters' memory. Cost: 3
    forward-equivalents per example.

    Args:
      loss_fn: `(params, example) -> scalar`, or `(scalar, aux)` where `has_aux`.
      second_moment: ν ≥ 0, like params: Adam's, divided by 1 − β₂ᵗ after few steps t.
      epsilon: ε > 0, of the optimiser.
      chunk_size: at least 1.

    Returns:
      `(params, batch) -> norms [B]`.

    Raises:
      ValueError: epsilon or chunk_size is out of range.
    """
    if epsilon <= 0:
        raise ValueError(f"preconditioned_norms: epsilon is {epsilon}; pass a positive number")
    if chunk_size < 1:
        raise ValueError(f"preconditioned_norms: chunk_size is {chunk_size}; pass at least 1")
    scale = jax.tree.map(lambda moment: 1 / (jnp.sqrt(wide(moment)) + epsilon), second_moment)

    def norms(params: Any, batch: Any) -> Array:
        def one(example: Any) -> Array:
            gradient = jax.grad(loss_fn, has_aux=has_aux)(params, example)
            scaled = jax.tree.map(jnp.multiply, gradient[0] if has_aux else gradient, scale)
            return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(scaled)))

        return lax.map(one, batch, batch_size=chunk_size)

    return norms


def _layer(path: tuple[Any, ...]) -> str:
    if path and path[-1] == GetAttrKey("value"):  # of a Flax variable: not a name
        path = path[:-1]
    keys = [_key(entry) for entry in path]
    numbers = [place for place, key in enumerate(keys) if isinstance(key, int)]
    outer = keys[: numbers[0] + 1] if numbers else keys
    if any("embed" in str(key).lower() for key in outer):
        return "embeddings"
    # the last component is the leaf's own name, unless there is no other
    kept = outer if numbers else (keys[:-1] or keys)[:2]
    return ".".join(str(key) for key in kept)


def _key(entry: Any) -> Any:
    if isinstance(entry, SequenceKey):
        return entry.idx
    if isinstance(entry, GetAttrKey):
        return entry.name
    if isinstance(entry, FlattenedIndexKey):
        return str(entry.key)  # a place among a module's children, not a layer's number
    return entry.key
