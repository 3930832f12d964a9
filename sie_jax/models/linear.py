"""The simplest ranker of our own: a weighted sum of features, fitted listwise with ridge."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int

from sie_jax.errors import UserError
from sie_jax.files import read_json, write_json

# Ridge strengths to choose among, the strongest first.
STRENGTHS = tuple(10.0**exponent for exponent in (1, 0.5, 0, -0.5, -1, -1.5, -2, -2.5, -3, -4))

_STEPS = 100  # Newton steps; a few are needed


@dataclass(frozen=True)
class LinearRanker:
    """score = w · features: the higher, the better within the query.

    Attributes:
      names: of the features, one weight each.
      weights: w.
      ridge: the strength that w was fitted with; 0 of weights that were trained in a model's head.
      standardised: how the features are to be scaled, "within the query" (`data.features`).
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    ridge: float
    standardised: str = "within the query"

    def scores(
        self, names: Sequence[str], features: Float[np.ndarray, "N F"]
    ) -> Float64[np.ndarray, "N"]:
        """The score of each pair; ValueError where the features are not those of the ranker."""
        if tuple(names) != self.names:
            raise ValueError(f"the ranker takes the features {self.names}, not {tuple(names)}")
        # row by row, so that a score does not depend on how many rows there are
        return np.einsum("nf,f->n", features.astype(np.float64), np.array(self.weights))

    def save(self, path: Path) -> None:
        """Writes the ranker as JSON; the weights are exact."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> "LinearRanker":
        """Reads what `save` wrote; UserError where it cannot be read."""
        try:
            return cls.from_json(read_json(path))
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{path}: the linear ranker cannot be read ({reason}): copy the model's folder "
                "again"
            ) from None

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "LinearRanker":
        """The ranker whose fields these are; KeyError, TypeError or ValueError if they are not."""
        ranker = cls(
            names=tuple(fields["names"]),
            weights=tuple(map(float, fields["weights"])),
            ridge=float(fields["ridge"]),
            standardised=fields["standardised"],
        )
        if len(ranker.names) != len(ranker.weights):
            raise ValueError("names and weights differ in number")
        if not all(isinstance(name, str) for name in ranker.names):
            raise ValueError("a name is no text")
        if len(set(ranker.names)) < len(ranker.names):
            raise ValueError("a name occurs twice")
        if not np.isfinite(ranker.weights).all():
            raise ValueError("a weight is NaN or infinite")
        return ranker


class Lists(NamedTuple):
    """What a listwise ranker learns from: pairs with features and gains, in queries.

    features: `[N, F]`, standardised within the query. gains: `[N]`, 0 or more. query_index: `[N]`,
    which pairs are of one query.
    """

    features: Float[np.ndarray, "N F"]
    gains: Float[np.ndarray, "N"]
    query_index: Int[np.ndarray, "N"]

    def rows(self, chosen: np.ndarray) -> "Lists":
        """The pairs that `chosen` (places, or one truth value each) takes."""
        return Lists(*(field[chosen] for field in self))


def loss(weights: np.ndarray, lists: Lists) -> float:
    """The listwise cross-entropy, the mean over queries:

        1/Q Σ_q -Σ_i t_qi log softmax_q(w · x)_i      t_qi = gain_qi / Σ_j gain_qj

    Over the Q queries with a positive gain; NaN without any. It is convex in w.

    Source: Cao et al., "Learning to rank: from pairwise approach to listwise approach", 2007
    (ListNet, top one), with gains for targets as in Bruch et al., "An analysis of the softmax cost
    function for learning to rank", 2019.
    """
    return _terms(np.asarray(weights, np.float64), _problem(lists))[0]


def gradient(weights: np.ndarray, lists: Lists, *, ridge: float) -> Float64[np.ndarray, "F"]:
    """The gradient of loss + ridge/2 ‖w‖²; 0 at the weights that `fit` gives."""
    weights = np.asarray(weights, np.float64)
    return _terms(weights, _problem(lists))[1] + ridge * weights


def fit(lists: Lists, *, ridge: float) -> Float64[np.ndarray, "F"]:
    """The weights that minimise loss + ridge/2 ‖w‖², by Newton's method from 0.

    The objective is strictly convex for ridge > 0, so there is one minimum, whatever the order of
    rows and queries. Steps are halved until the objective falls enough (Armijo). Once the squared
    Newton decrement is below 1e-12, a last full step leaves a gradient of rounding size, because
    the distance is squared by it. Deterministic.

    Raises:
      ValueError: ridge is not above 0, or no query has a positive gain.
    """
    if not ridge > 0:
        raise ValueError(f"ridge is {ridge:g}: give a strength above 0")
    problem = _problem(lists)
    if not problem.queries:
        raise ValueError("no query has a positive gain: there is no order to learn")
    weights = np.zeros(lists.features.shape[1])
    for _ in range(_STEPS):
        value, slope, curvature = _terms(weights, problem)
        value += ridge / 2 * float(weights @ weights)
        slope = slope + ridge * weights
        step = -np.linalg.solve(curvature + ridge * np.eye(len(weights)), slope)
        if -(slope @ step) <= 1e-12:
            return weights + step
        size = 1.0
        while size > 1e-10:
            trial = weights + size * step
            there = _terms(trial, problem, curvature=False)[0] + ridge / 2 * trial @ trial
            if there <= value + 1e-4 * size * (slope @ step):
                break
            size /= 2
        else:  # at the minimum to rounding
            return weights
        weights = trial
    return weights


def choose(
    lists: Lists, folds: Int[np.ndarray, "N"], *, strengths: Sequence[float] = STRENGTHS
) -> tuple[float, dict[float, float]]:
    """The ridge strength with the least loss on queries that were left out.

    For each strength, `fit` learns from all folds but one and `loss` measures on that one; the
    losses are averaged over all queries with a positive gain. The first strength given wins ties,
    and where no fold can be measured.

    Args:
      lists: the training queries alone.
      folds: the fold of each pair, all pairs of a query in one (`data.folds.assign`).
      strengths: what to choose among.

    Returns:
      The strength, and the loss of each.
    """
    parts = [
        (lists.rows(folds != fold), _problem(lists.rows(folds == fold)))
        for fold in np.unique(folds)
    ]
    usable = [part for part in parts if _problem(part[0]).queries and part[1].queries]
    queries = sum(left_out.queries for _, left_out in usable)
    losses = {}
    for strength in strengths:
        total = 0.0
        for training, left_out in usable:
            weights = fit(training, ridge=strength)
            total += _terms(weights, left_out, curvature=False)[0] * left_out.queries
        losses[strength] = total / queries if queries else np.nan
    return min(losses, key=lambda strength: losses[strength]), losses


def held_out(
    lists: Lists, folds: Int[np.ndarray, "N"], *, strengths: Sequence[float] = STRENGTHS
) -> Float64[np.ndarray, "N"]:
    """The score of each pair by weights that are fitted, and whose ridge is chosen, without it.

    Each fold is scored by `fit` on the others, with the strength that `choose` gives for those.
    Where the others have no query of positive gain, the scores are 0.

    Args and Raises: as `choose`.
    """
    scores = np.zeros(len(folds))
    for fold in np.unique(folds):
        others = folds != fold
        training, inner = lists.rows(others), folds[others]
        if not _problem(training).queries:
            continue
        ridge, _ = choose(training, inner, strengths=strengths)
        scores[~others] = lists.features[~others] @ fit(training, ridge=ridge)
    return scores


class _Problem(NamedTuple):
    """The pairs of queries with a positive gain, query after query, and each one's target."""

    features: np.ndarray
    targets: np.ndarray
    query: np.ndarray
    starts: np.ndarray

    @property
    def queries(self) -> int:
        return len(self.starts)


def _problem(lists: Lists) -> _Problem:
    gains = np.asarray(lists.gains, np.float64)
    distinct, query = np.unique(lists.query_index, return_inverse=True)
    total = np.bincount(query, weights=gains, minlength=len(distinct))
    kept = np.flatnonzero(total[query] > 0)
    kept = kept[np.argsort(query[kept], kind="stable")]
    targets = gains[kept] / total[query[kept]]
    lengths = np.bincount(query[kept], minlength=len(distinct))
    lengths = lengths[lengths > 0]
    return _Problem(
        features=lists.features[kept].astype(np.float64),
        targets=targets,
        query=np.repeat(np.arange(len(lengths)), lengths),
        starts=np.cumsum(lengths) - lengths,
    )


def _terms(
    weights: np.ndarray, problem: _Problem, *, curvature: bool = True
) -> tuple[float, Any, Any]:
    """The loss, its gradient and its Hessian, the last two only where asked for."""
    if not problem.queries:
        return np.nan, None, None
    x, targets, query, starts = problem
    scores = x @ weights
    scores -= np.maximum.reduceat(scores, starts)[query]
    log_total = np.log(np.add.reduceat(np.exp(scores), starts))
    log_share = scores - log_total[query]
    value = -float(targets @ log_share) / len(starts)
    if not curvature:
        return value, None, None
    share = np.exp(log_share)
    slope = x.T @ (share - targets) / len(starts)
    # the covariance of the features under the softmax, summed over queries
    means = np.add.reduceat(x * share[:, None], starts)
    hessian = (x.T @ (x * share[:, None]) - means.T @ means) / len(starts)
    return value, slope, hessian
