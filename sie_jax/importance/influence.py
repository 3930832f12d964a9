"""Scores by what training on an example does to others: TracIn, gradient similarity, TRAK.

The sign is the same for all, EK-FAC (`ekfac`) included: to a target, positive means that training
on the example helps it (lowers its loss, raises its log-odds) and negative that it harms it. An
example's influence on itself is ≥ 0; high means hard, memorised or mislabelled.

| case                                       | result                                         |
| ------------------------------------------ | ---------------------------------------------- |
| several targets                            | the mean gradient gives the mean of influences |
| a gradient of 0                            | 0                                              |
| examples reordered                         | the same scores, reordered                     |
| accumulation                               | at least float32, products at full precision   |
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sie_jax.importance.precision import einsum, wide


def log_odds(logits: Float[Array, "*b k"], labels: Int[Array, "*b"]) -> Float[Array, "*b"]:
    """f = log(p_y / (1 − p_y)) = z_y − log Σ over c ≠ y of exp z_c. High means EASY.

    TRAK's output function (Park et al. 2023, section 3.1). 1 − p_y = sigmoid(−f), and as
    ℓ = −log p_y, ∇ℓ = −(1 − p_y) ∇f. Differentiate f and scale, not the other way round: ∇ℓ holds
    p_y − 1, which rounding spoils long before 1 − p_y underflows.

    K ≥ 2: a single class has infinite odds and no gradient.
    """
    logits = wide(logits)
    given = jnp.take_along_axis(logits, labels[..., None], -1)[..., 0]
    is_label = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    return given - jax.nn.logsumexp(jnp.where(is_label, -jnp.inf, logits), axis=-1)


def tracin(
    dots: Float[Array, "c n"], learning_rates: Float[Array, " c"] | Sequence[float]
) -> Float[Array, " n"]:
    """TracIn, Σ_c η_c ⟨∇ℓ_c(z_i), g_c⟩, g_c the mean loss gradient of the targets at checkpoint c.

    High: HELPFUL to the targets. By linearity it is the mean over the targets z' of the pairwise
    Σ_c η_c ⟨∇ℓ_c(z_i), ∇ℓ_c(z')⟩ (Pruthi et al. 2020, "Estimating Training Data Influence by
    Tracing Gradient Descent", section 3.2, TracInCP), over all parameters. Cost: 3
    forward-equivalents per example and checkpoint.
    """
    return einsum("c,cn->n", jnp.asarray(learning_rates), dots)


def tracin_self(
    norms: Float[Array, "c n"], learning_rates: Float[Array, " c"] | Sequence[float]
) -> Float[Array, " n"]:
    """Σ_c η_c ‖∇ℓ_c(z_i)‖² ≥ 0: TracIn of an example on itself. High: hard or mislabelled.

    Self-influence of Pruthi et al. 2020, section 4.1. Cost: 2 forward-equivalents per example and
    checkpoint.
    """
    return einsum("c,cn->n", jnp.asarray(learning_rates), jnp.square(wide(norms)))


def gradient_similarity(
    dots: Float[Array, " n"], norms: Float[Array, " n"], target_norm: Float[Array, ""] | float
) -> Float[Array, " n"]:
    """⟨∇ℓ_i, g⟩ / (‖∇ℓ_i‖ ‖g‖) in [−1, 1], g the targets' mean gradient. High: HELPFUL.

    It is 0 if either norm is 0. Unlike TracIn it does not grow with the example's own gradient, so
    that examples with large ones do not take all places (Barshan et al. 2020, "RelatIF").
    """
    product = wide(norms) * target_norm
    cosine = jnp.where(product > 0, dots / jnp.where(product > 0, product, 1), 0)
    return jnp.clip(cosine, -1, 1)


def trak(
    training: Float[Array, "*c n d"],
    targets: Float[Array, "*c m d"],
    residuals: Float[Array, "*c n"],
    *,
    damping: float,
) -> Float[Array, "m n"]:
    """TRAK, τ(z, i) = φ(z)ᵀ (ΦᵀΦ + λI)⁻¹ φ_i · (1 − p_i). High: HELPFUL, raises z's log-odds.

    Park et al. 2023 ("TRAK: Attributing Model Behavior at Scale", section 3). φ = P ∇f is the
    projected gradient of the log-odds (`log_odds`), Φ `[N, D]` stacks those of the training set.
    With a leading axis of checkpoints, the kernels φᵀ(ΦᵀΦ + λI)⁻¹φ and the residuals are averaged
    over it separately and then multiplied, as in the paper's ensembles. Theirs are models trained
    on random halves of the data; checkpoints of one run are cheaper, and less diverse.

    Linear in the targets: `targets.mean(-2, keepdims=True)` gives the mean over them, `[1, N]`,
    without an array of `[M, N]`.

    Args:
      training: `[N, D]` or `[C, N, D]`, at least 1 row. targets: `[M, D]` or `[C, M, D]`.
      residuals: 1 − p_i, the probability of all labels but the given one, `[N]` or `[C, N]`.
      damping: λ as a share of the mean eigenvalue of ΦᵀΦ, trace/D. The paper has none; if N < D
        some is needed.

    Raises:
      ValueError: the damping is negative.

    Cost beyond the projections: 2 N D² for ΦᵀΦ and D³/3 for its Cholesky factor, per checkpoint.
    """
    training, targets = _checkpoints(training), _checkpoints(targets)
    solved = _solve(training, targets, damping)
    kernels = einsum("cmd,cnd->mn", solved, training) / len(training)
    return kernels * jnp.mean(wide(residuals).reshape(-1, training.shape[1]), axis=0)


def trak_self(
    training: Float[Array, "*c n d"], residuals: Float[Array, "*c n"], *, damping: float
) -> Float[Array, " n"]:
    """The diagonal of `trak(training, training, residuals)`, ≥ 0. High: hard or memorised.

    Arguments and errors as in `trak`. The first factor is the (ridge) leverage of φ_i, in [0, 1].
    """
    training = _checkpoints(training)
    leverages = jnp.sum(_solve(training, training, damping) * training, axis=-1)
    residuals = wide(residuals).reshape(-1, training.shape[1])
    return jnp.mean(leverages, axis=0) * jnp.mean(residuals, axis=0)


def _checkpoints(values: Array) -> Array:
    """The values with a leading axis of checkpoints, which may have been left out."""
    return wide(values).reshape(-1, *values.shape[-2:])


def _solve(training: Array, vectors: Array, damping: float) -> Array:
    """(ΦᵀΦ + λI)⁻¹ v for each checkpoint's vectors `[C, M, D]`."""
    if damping < 0:
        raise ValueError(f"damping is {damping}; pass 0 or a positive number")
    gram = einsum("cnd,cne->cde", training, training)
    mean = jnp.trace(gram, axis1=1, axis2=2) / gram.shape[-1]
    # without any gradient the solution is 0 whatever the ridge
    ridge = jnp.where(mean > 0, damping * mean, 1)[:, None, None] * jnp.eye(gram.shape[-1])
    factor = jax.scipy.linalg.cho_factor(gram + ridge.astype(gram.dtype))
    return jax.vmap(lambda c, v: jax.scipy.linalg.cho_solve((c, False), v.T).T)(factor[0], vectors)
