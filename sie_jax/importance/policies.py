"""Policies that turn scores into weights over the objective.

A policy is an unnormalised φ(score) ≥ 0; `normalise` is the one function that makes weights of it.
Weights change the objective to Σ w_i ℓ_i. Drawing examples with probability p_i and correcting by
1/(N p_i) does not, and is another thing (`sampling`).

What every policy guarantees, for scores `[N]` ≥ 0 and a boolean `where` `[N]`:

| case                                    | weights                                   |
| --------------------------------------- | ----------------------------------------- |
| always                                  | finite, ≥ 0, sum 1 over `where`           |
| `where` is False (padding)              | exactly 0, whatever the score, NaN too    |
| all scores equal, or all 0              | uniform over `where`                      |
| a score that is NaN or infinite         | 0: a broken example has no influence      |
| every score NaN or infinite             | uniform over `where`                      |
| `where` is False everywhere             | all 0                                     |
| examples reordered                      | the same weights, reordered               |

Online, a policy sees one global batch and the update is Σ w_i ∇ℓ_i. Offline, it sees the training
set, and a batch of B uses w_i · N/B, so that the expected step is as large as a uniform one.

Policies are frozen: equal ones are interchangeable, and share what was compiled for one of them.
"""

import abc
import dataclasses
from collections.abc import Hashable
from typing import ClassVar, Protocol, Self

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sie_jax.importance.precision import wide

Scores = Float[Array, " n"]
Where = Bool[Array, " n"] | None
Weights = Float[Array, " n"]


class Policy(Hashable, Protocol):
    """Whatever turns scores into weights with the guarantees of this module's table."""

    def __call__(self, scores: Scores, *, where: Where = None) -> Weights: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedPolicy(abc.ABC):
    """A policy that users can name, with its options as fields.

    name: what users write. formula: of the weight, with s the score, c the median of all scores, N
    their number, and options by their fields in the config. suits: for what data it is, and what it
    costs there. varied: the option that is the policy's strength, the one number that `auto`
    varies; empty if there is none.
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    suits: ClassVar[str]
    varied: ClassVar[str] = ""

    @classmethod
    def of_strength(cls, strength: float | None) -> Self:
        """The policy of this strength, other options at their defaults; None leaves all of them."""
        return cls() if strength is None else cls(**{cls.varied: strength})

    @property
    def strength(self) -> float | None:
        """The value of the option that is the policy's strength; None if it has none."""
        return getattr(self, self.varied) if self.varied else None

    @abc.abstractmethod
    def __call__(self, scores: Scores, *, where: Where = None) -> Weights:
        """The weights `[N]` of these scores."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uniform(NamedPolicy):
    """w_i = 1/N: φ = 1 for every example with a finite score."""

    name = "uniform"
    formula = "1/N"
    suits = "the reference, which always runs"

    def __call__(self, scores: Scores, *, where: Where = None) -> Weights:
        return normalise(jnp.ones_like(scores), scores=scores, where=where)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proportional(NamedPolicy):
    """w_i = g_i / Σ_j g_j: φ(g) = g, the textbook formula.

    It favours what the model finds hard, and a mislabelled example is hard: on noisy labels it
    trains on the errors. It needs no batch statistic, so numerator and denominator accumulate
    exactly over microbatches.
    """

    name = "proportional"
    formula = "∝ s"
    suits = "clean labels and rare hard cases. It favours hard pairs, and so mislabelled ones"

    def __call__(self, scores: Scores, *, where: Where = None) -> Weights:
        return normalise(scores, scores=scores, where=where)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clipped(NamedPolicy):
    """w_i ∝ min(1, c/g_i), c the median of the scores: no example pulls harder than the median one.

    With g the gradient norm, w_i‖∇ℓ_i‖ ≤ c/Σφ, as in per-example gradient clipping (Abadi et al.
    2016) with c taken from the data. g = 0 gives φ = 1. A median of 0 bounds nothing, and the
    weights are then uniform. The median needs the whole batch: microbatches take all norms first
    and one weighted backward pass after.
    """

    name = "clipped"
    formula = "∝ min(1, c/s)"
    suits = "all data: no pair may pull harder than the median one"

    def __call__(self, scores: Scores, *, where: Where = None) -> Weights:
        where = _where(scores, where)
        scores = wide(scores)
        median = _median(scores, where)
        bounded = jnp.where(scores > median, median / jnp.maximum(scores, median), 1.0)
        return normalise(jnp.where(median > 0, bounded, 1.0), scores=scores, where=where)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inverse(NamedPolicy):
    """w_i ∝ 1/(1 + g_i/c), c the median of the scores: the harder, the less.

    1/g itself would give everything to the example whose gradient is nearest to 0. With c in it no
    φ is above 1, and that of the median example is 1/2. If the median is 0 the weights are uniform.
    The policy favours what is learned already, and so trusts easy labels: the opposite bet of
    `Proportional`.
    """

    name = "inverse"
    formula = "∝ 1 / (1 + s/c)"
    suits = "noisy labels. It trusts what is learned already, and so loses rare pairs"

    def __call__(self, scores: Scores, *, where: Where = None) -> Weights:
        where = _where(scores, where)
        scores = wide(scores)
        median = _median(scores, where)
        ratio = scores / jnp.maximum(median, jnp.finfo(scores.dtype).tiny)
        return normalise(jnp.where(median > 0, 1 / (1 + ratio), 1.0), scores=scores, where=where)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Believed(NamedPolicy):
    """w_i ∝ max(0, 1 − s_i), for a score that is the chance that the label is not to be believed.

    The expected weight where doubtful examples are left out. A score of 1 or more gives 0; if all
    have that the weights are uniform.
    """

    name = "believed"
    formula = "∝ max(0, 1 − s)"
    suits = "scores that are chances: `doubtful_groups`. Where nothing is doubtful it is uniform"

    def __call__(self, scores: Scores, *, where: Where = None) -> Weights:
        believed = jnp.maximum(1 - wide(scores), 0.0)
        return normalise(believed, scores=scores, where=where)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tempered(NamedPolicy):
    """w_i = g_i^α / Σ_j g_j^α, α = `power`: between uniform (α = 0) and proportional (α = 1).

    The exponent of prioritised replay (Schaul et al. 2016, "Prioritized Experience Replay",
    equation 1). α > 0 favours the hard, and with them mislabelled examples, the less so the smaller
    α is; α < 0 favours the easy.

    power: any finite number. g = 0 gives φ = 0 for α > 0 and φ = 1 for α = 0. For α < 0, where 0^α
    would be infinite, it counts as the least positive score, so that no example takes everything.
    """

    name = "tempered"
    formula = "∝ s^`power`"
    suits = (
        "in between: a power above 0 favours hard pairs, and so mislabelled ones, and one "
        "below 0 easy pairs"
    )
    varied = "power"

    power: float = 0.5

    def __call__(self, scores: Scores, *, where: Where = None) -> Weights:
        inside = _where(scores, where)
        usable = inside & jnp.isfinite(scores)
        scores = wide(scores)
        limits = jnp.finfo(scores.dtype)
        # ratios to the score with the largest φ are at most 1, so that no power of them overflows
        if self.power >= 0:
            ratios = scores / jnp.max(scores, where=usable, initial=limits.tiny)
        else:
            least = jnp.min(scores, where=usable & (scores >= limits.tiny), initial=limits.max)
            ratios = least / jnp.maximum(scores, least)
        return normalise(ratios ** abs(self.power), scores=scores, where=inside)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranked(NamedPolicy):
    """w_i = 2 r_i / (n (n + 1)), r_i the rank of the score among n: 1 the lowest, n the highest.

    Scores that tie share the mean of their ranks; φ is the rank. Linear ranking (Baker 1985,
    "Adaptive Selection Methods for Genetic Algorithms"), for the reason that Schaul et al. 2016
    give for ranks: an outlier counts no more than its place. It favours the hard as `Proportional`
    does, and so the mislabelled, but gives none more than twice its uniform share. Ranks need the
    whole batch, as the median of `Clipped` does.
    """

    name = "ranked"
    formula = "∝ rank of s"
    suits = (
        "like `proportional`, for scores with outliers: no weight is above twice the "
        "uniform one. It favours mislabelled pairs too"
    )

    def __call__(self, scores: Scores, *, where: Where = None) -> Weights:
        inside = _where(scores, where)
        usable = inside & jnp.isfinite(scores)
        ascending = jnp.sort(jnp.where(usable, scores, jnp.inf))
        lower = jnp.searchsorted(ascending, scores, side="left")
        upper = jnp.searchsorted(ascending, scores, side="right")
        # of scores that tie, the ranks are lower + 1, …, upper
        ranks = (lower + upper + 1) / 2
        return normalise(ranks, scores=scores, where=inside)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Keep(NamedPolicy):
    """w_i ∝ 1 for the `fraction` of the examples with the lowest scores, 0 for the rest.

    It trains on the labels that the model finds easiest to believe; `Banded` without a lower end.
    fraction: in (0, 1]. At least one example stays, and all that tie with the last that does.
    """

    name = "keep"
    formula = "∝ 1 for the `keep_fraction` lowest, else 0"
    suits = "noisy labels, of which about that share is right"
    varied = "fraction"

    fraction: float = 0.8

    def __call__(self, scores: Scores, *, where: Where = None) -> Weights:
        band = Banded(drop_hardest=1 - self.fraction, drop_easiest=0.0)
        return band(scores, where=where)


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeepHardest(NamedPolicy):
    """w_i ∝ 1 for the `fraction` of the examples with the highest scores, 0 for the rest.

    The pruning of Paul et al. 2021 ("Deep Learning on a Data Diet", section 3), by the score given;
    `Banded` without an upper end. It keeps every mislabelled example that is hard, so that their
    share grows as the fraction falls. If data are few, keeping the easy is the better choice even
    on clean labels (Sorscher et al. 2022, "Beyond neural scaling laws").
    fraction: in (0, 1]. At least one example stays, and all that tie with the last that does.
    """

    name = "keep_hardest"
    formula = "∝ 1 for the `keep_fraction` highest, else 0"
    suits = "a smaller training set of clean labels. It keeps every mislabelled pair that is hard"
    varied = "fraction"

    fraction: float = 0.8

    def __call__(self, scores: Scores, *, where: Where = None) -> Weights:
        band = Banded(drop_hardest=0.0, drop_easiest=1 - self.fraction)
        return band(scores, where=where)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Banded(NamedPolicy):
    """w_i ∝ 1 between two quantiles of the scores, 0 outside: neither errors nor what is known.

    Of n finite scores the round(drop_hardest · n) highest and the round(drop_easiest · n) lowest
    go; at least one stays. An example whose score equals that of one that stays, stays.

    drop_hardest, drop_easiest: shares ≥ 0 with a sum < 1. Dropping the hardest removes mislabelled
    examples, and with them the rare ones that are merely hard. Dropping the easiest alone is the
    pruning of Paul et al. 2021 ("Deep Learning on a Data Diet", section 3).
    """

    name = "banded"
    formula = "∝ 1 between the shares `drop_easiest` and `drop_hardest`, else 0"
    suits = (
        "noisy labels of which much is known already: it leaves out errors and the easiest pairs"
    )
    varied = "drop_hardest"

    drop_hardest: float = 0.1
    drop_easiest: float = 0.1

    def __call__(self, scores: Scores, *, where: Where = None) -> Weights:
        inside = _where(scores, where)
        usable = inside & jnp.isfinite(scores)
        scores = wide(scores)
        ascending = jnp.sort(jnp.where(usable, scores, jnp.inf))
        count = jnp.sum(usable)
        last = jnp.maximum(count - jnp.round(self.drop_hardest * count).astype(int) - 1, 0)
        first = jnp.minimum(jnp.round(self.drop_easiest * count).astype(int), last)
        kept = (scores >= ascending[first]) & (scores <= ascending[last])
        return normalise(1.0 * kept, scores=scores, where=inside)


POLICIES: dict[str, type[NamedPolicy]] = {
    kind.name: kind
    for kind in (
        Uniform,
        Proportional,
        Clipped,
        Inverse,
        Believed,
        Tempered,
        Ranked,
        Keep,
        KeepHardest,
        Banded,
    )
}
"""All policies by the names that users write."""


def normalise(values: Float[Array, " n"], *, scores: Scores, where: Where = None) -> Weights:
    """w_i = φ_i / Σ_j φ_j over `where`, with the guarantees of this module's table.

    `values` are the φ_i ≥ 0, `scores` what they were computed from (a non-finite score takes the
    example out). Computed in at least float32, without overflow for any finite φ.
    """
    inside = _where(values, where)
    values = wide(values)
    usable = inside & jnp.isfinite(scores) & jnp.isfinite(values)
    values = jnp.where(usable, values, 0.0)
    largest = jnp.max(values, initial=0.0)
    # an exact power of two that keeps both the sum and its reciprocal inside float32's range
    scaled = values * jnp.where(largest > 1, 2.0**-64, 2.0**64)
    values = jnp.where(largest > 0, scaled, 1.0 * usable)
    # nothing usable (every score broken): uniform over what is inside
    values = jnp.where(jnp.any(usable), values, 1.0 * inside)
    return values / jnp.maximum(jnp.sum(values), jnp.finfo(values.dtype).tiny)


def _median(scores: Array, where: Array) -> Array:
    """The median of the finite scores inside `where`."""
    return jnp.nanmedian(jnp.where(where & jnp.isfinite(scores), scores, jnp.nan))


def _where(values: Array, where: Array | None) -> Array:
    return jnp.ones(values.shape, bool) if where is None else where
