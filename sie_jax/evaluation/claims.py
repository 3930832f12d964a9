"""Two claims, two intervals: of fixed rankers over queries, of procedures over seeds as well.

A *fixed* ranker against another needs no seeds: the files are what they are, and only the test
queries are a sample. A *procedure* (a weighting, a task, a recipe) gives another ranker with each
seed, so its claim is about queries and seeds. Both hold for the training data as they are: what
other training queries would have given is in neither interval. The differences d_sq of S seeds on
the same Q queries are taken as

    d_sq = μ + a_s + b_q + e_sq        independent, variances A of seeds, B of queries, E of both
    Var(d̄) = A/S + B/Q + E/(SQ)

and with the variance s² of the S seeds' means, the variance b² of the Q queries' means, and the
mean square e² of d_sq - d̄_s - d̄_q + d̄, of (S - 1)(Q - 1) degrees of freedom,

    E[s²/S] = A/S + E/(SQ)        E[b²/Q] = B/Q + E/(SQ)        E[e²/(SQ)] = E/(SQ)

So b²/Q, the variance over queries of the seeds' mean difference, holds the part E/(SQ) that s²/S
holds too. Their plain sum counts it twice. That is harmless where it is small, and wrong where it
is most of the variance: two trainings of one recipe differ mainly in *which* queries each ranks
well. Then the sum calls identical procedures different more rarely than the level allows, and
misses true differences.
What queries add to the seeds' part is the rest:

    V_q = max(0, b²/Q - e²/(SQ))
    V   = V_q + s²/S
    ν   = V² / (V_q²/(Q - 1) + (s²/S)²/(S - 1))        Welch–Satterthwaite
    d̄ ∓ t(0.975, ν) · sqrt(V)

e² is taken from b² and not from s² because s² has few degrees of freedom: too small by chance, it
would be cut to 0 and leave seeds out of the claim. With S = 2 even ν is mostly chance, since s² has
one degree: the two quantiles are then weighed by their parts (Cochran and Cox),

    t = (V_q · t(0.975, Q - 1) + s²/S · t(0.975, S - 1)) / V

`benchmarks/aa_check.py` compares these with the bootstrap over queries alone and with the plain
sum, on pairs of identical procedures.

Source: Clark, "The language-as-fixed-effect fallacy", 1973 (minF' is the plain sum); Forster and
Dickinson, "More on the language-as-fixed-effect fallacy", 1976 (its error rates); Satterthwaite,
"An approximate distribution of estimates of variance components", 1946; Cochran and Cox,
"Experimental Designs", 1957.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float64
from scipy import optimize, special

LEVEL = 0.95


def fixed(
    differences: Float64[np.ndarray, "Q"], *, level: float = LEVEL
) -> dict[str, float | None]:
    """The mean difference of two fixed rankers, with Student's t interval over queries.

    Args:
        differences: Of each query, ranker less the other. NaN is left out.
        level: The probability that the interval holds the mean over all queries.

    Returns:
        `{"value", "low", "high"}`: d̄ ∓ t(Q - 1) · sd/sqrt(Q). None where undefined: all three
        without a query, the bounds with one.
    """
    return _of_queries(differences[None], level)


def procedure(
    differences: Float64[np.ndarray, "S Q"], *, level: float = LEVEL
) -> dict[str, float | None]:
    """The mean difference of two procedures, with the interval over queries and seeds.

    Args:
        differences: Of each pair of trained rankers (seeds that share their start and order are a
            pair) on each query. A query with a NaN is left out.
        level: The probability that the interval holds the mean over all queries and seeds.

    Returns:
        `{"value", "low", "high"}` as the head of this file says. With one seed the bounds are
        None: nothing is known about the chance of training, so there is no claim. Also with fewer
        than two queries.
    """
    found = _of_queries(differences, level)
    return found if len(differences) > 1 else found | {"low": None, "high": None}


def p_value(interval: Callable[[float], Mapping[str, float | None]]) -> float:
    """The two-sided p of "the difference is 0": 1 less the level whose interval ends at 0.

    Args:
        interval: Gives the claim at a level, as `lambda level: procedure(rows, level=level)` does.

    Returns:
        To 1e-9. It is 1 where the value is 0 or the bounds are undefined, and 1e-12 where nothing
        varies about another value.
    """

    def above(level: float) -> float:
        """Which is 0 where a bound is, and rises with the level."""
        claim = interval(level)
        assert claim["value"] is not None
        assert claim["low"] is not None
        return float(claim["value"] - claim["low"] - abs(claim["value"]))

    claim = interval(LEVEL)
    if not claim["value"] or claim["low"] is None:
        return 1.0
    highest = 1 - 1e-12
    if above(highest) <= 0:
        return 1 - highest
    return float(1 - optimize.brentq(above, 0.0, highest, xtol=1e-10))


def of_rows(
    values: Float64[np.ndarray, "N"],
    covariance: Float64[np.ndarray, "N N"],
    *,
    sizes: Sequence[int],
    queries: int,
    level: float = LEVEL,
) -> dict[str, float | None]:
    """The interval of a sum of means over seeds, from what queries alone do to each seed's value.

    It takes any statistic of the queries: for a mean over queries the covariance is that of the
    rows d_s over Q; for another (macro-F1) it is what resampling the queries gives.

    Args:
        values: Each seed's value, group after group.
        covariance: Of the values, over the choice of queries with the rankers as they are.
        sizes: The groups. Seeds of one group are draws of one procedure, and the sum of the groups'
            means is the value. One group of S differences where seeds are paired; where two runs
            have unequal numbers of seeds, one group for each, the second with its sign turned. A
            group of one is fixed: it is not said to vary.
        queries: Q, of which V_q has Q - 1 degrees of freedom.
        level: As in `procedure`.

    Returns:
        `{"value", "low", "high"}`, None where undefined: all three for a value that is NaN, the
        bounds with fewer than two queries. All three are equal where nothing varies.
    """
    groups = np.repeat(np.arange(len(sizes)), sizes)
    share = 1 / np.asarray(sizes, np.float64)[groups]
    value = float(share @ values)
    if np.isnan(value) or queries < 2:
        return {"value": None if np.isnan(value) else value, "low": None, "high": None}
    over_queries, parts = float(share @ covariance @ share), []
    for group, size in enumerate(sizes):
        if size > 1:
            own = covariance[np.ix_(groups == group, groups == group)]
            over_queries -= float(np.trace(own) / size - own.mean()) / (size - 1)  # e²/(SQ)
            parts.append((float(values[groups == group].var(ddof=1)) / size, size - 1))
    parts.append((max(over_queries, 0.0), queries - 1))
    variances, freedoms = np.array(parts).T
    half = _critical(variances, freedoms, level) * float(variances.sum()) ** 0.5
    return {"value": value, "low": value - half, "high": value + half}


def contrasts(
    run: Float64[np.ndarray, "S *rest"], reference: Float64[np.ndarray, "T *rest"]
) -> tuple[tuple[int, ...], Float64[np.ndarray, "N *rest"]]:
    """What `of_rows` takes of two runs: the sizes of its groups, and their rows.

    Seeds are paired in their order where S = T. Where one of the numbers is 1, that run is fixed
    (a baseline) and stands against each seed of the other. Otherwise the seeds are not paired.
    """
    if len(run) == len(reference) or 1 in (len(run), len(reference)):
        differences = run - reference
        return (len(differences),), differences
    return (len(run), len(reference)), np.concatenate([run, -reference])


def covariance_of_means(rows: Float64[np.ndarray, "N Q"]) -> Float64[np.ndarray, "N N"]:
    """The covariance of the rows' means over the choice of their queries; 0 with fewer than two."""
    size, queries = rows.shape
    if queries < 2:
        return np.zeros((size, size))
    return np.cov(rows).reshape(size, size) / queries


def _of_queries(rows: np.ndarray, level: float) -> dict[str, float | None]:
    """The interval of the mean of rows [S, Q] that are one group."""
    rows = rows[:, ~np.isnan(rows).any(0)]
    size, queries = rows.shape
    values = rows.mean(1) if queries else np.full(size, np.nan)
    covariance = covariance_of_means(rows)
    return of_rows(values, covariance, sizes=(size,), queries=queries, level=level)


def _critical(variances: np.ndarray, freedoms: np.ndarray, level: float) -> float:
    """The quantile of d̄'s t statistic, whose variance is a sum of estimates."""
    total = variances.sum()
    if total == 0:
        return 0.0
    if freedoms.min() < 2:
        return float(variances @ special.stdtrit(freedoms, (1 + level) / 2) / total)
    freedom = total**2 / (variances**2 / freedoms).sum()
    return float(special.stdtrit(freedom, (1 + level) / 2))
