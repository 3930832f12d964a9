"""Scores read off the model's outputs: loss, EL2N, margin and entropy.

All take logits `[..., K]` (float) and labels `[...]` (int, 0 to K-1) and return `[...]` in at least
float32. They cost nothing beyond the forward pass that gave the logits. Each states its sign;
`registry.hardness` turns every score so that high means hard.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sie_jax.importance.precision import wide


def loss(logits: Float[Array, "*b k"], labels: Int[Array, "*b"]) -> Float[Array, "*b"]:
    """Cross-entropy −log p_y in nats, ≥ 0. High: the model finds the label unlikely."""
    log_probabilities = jax.nn.log_softmax(wide(logits))
    return -jnp.take_along_axis(log_probabilities, labels[..., None], -1)[..., 0]


def el2n(logits: Float[Array, "*b k"], labels: Int[Array, "*b"]) -> Float[Array, "*b"]:
    """EL2N, ‖p − onehot(y)‖₂, in [0, √2]. High: hard or mislabelled.

    The norm of the loss gradient with respect to the logits (Paul et al. 2021, "Deep Learning on a
    Data Diet", definition 2.2, for one model; their average over seeds is left to the caller).
    """
    logits = wide(logits)
    error = jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return jnp.linalg.norm(error, axis=-1)


def margin(logits: Float[Array, "*b k"], labels: Int[Array, "*b"]) -> Float[Array, "*b"]:
    """p_y − max over c ≠ y of p_c, in [−1, 1]. High means EASY; negative: another class wins.

    The probability margin of confident learning (Northcutt et al. 2021, section 3.2, "normalized
    margin"). A single class has no other: its margin is p_y = 1.
    """
    probabilities = jax.nn.softmax(wide(logits))
    given = jnp.take_along_axis(probabilities, labels[..., None], -1)[..., 0]
    is_label = jax.nn.one_hot(labels, probabilities.shape[-1], dtype=bool)
    return given - jnp.max(jnp.where(is_label, 0.0, probabilities), axis=-1)


def logit_margin(logits: Float[Array, "*b k"], labels: Int[Array, "*b"]) -> Float[Array, "*b"]:
    """z_y − max over c ≠ y of z_c, in logits. High means EASY; negative: another class wins.

    The area under the margin is its mean over training (Pleiss et al. 2020, "Identifying
    Mislabeled Data using the Area Under the Margin Ranking", equation 1). Unlike `margin` it still
    grows when the probabilities are near 1. A single class has no other: its margin is infinite.
    """
    logits = wide(logits)
    given = jnp.take_along_axis(logits, labels[..., None], -1)[..., 0]
    is_label = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    return given - jnp.max(jnp.where(is_label, -jnp.inf, logits), axis=-1)


def entropy(logits: Float[Array, "*b k"], labels: Int[Array, "*b"] | None = None) -> Array:
    """−Σ_c p_c log p_c in nats, in [0, log K]. High: the model is unsure; the label is not used."""
    del labels
    log_probabilities = jax.nn.log_softmax(wide(logits))
    # p log p is 0 at p = 0, where the product alone would be 0 · −inf
    terms = jnp.where(log_probabilities > -jnp.inf, log_probabilities, 0.0)
    return -jnp.sum(jnp.exp(log_probabilities) * terms, axis=-1)
