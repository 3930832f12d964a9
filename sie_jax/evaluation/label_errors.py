"""How doubtful each label is by a model's predictions, and how many of the labels are wrong."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int
from scipy import optimize

from sie_jax.evaluation import intervals

SCORES = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
ANCHORS = 0.1  # the share of a label's pairs that are taken for surely of it
FEWEST = 20  # of them, where there are as many
SURE = 0.85
PUREST = 0.75  # the noise of labels excuses no more than what is above this
WIDENED = 2.0
RESAMPLES = 1000
_LEAST = 1e-12  # of a probability
_FLOOR = 1e-4  # of that a class is right


def doubts(
    score: str, probabilities: Float[np.ndarray, "N K"], labels: Int[np.ndarray, "N"]
) -> Float64[np.ndarray, "N"]:
    """How doubtful each label y is, from 0 to 1: one less cleanlab's label quality.

        self_confidence              1 − p_y
        normalized_margin            (1 + max_{k≠y} p_k − p_y) / 2
        confidence_weighted_entropy  1 − log(1 + r)/r, r = H(p) / (p_y log K)

    Source: Northcutt, Jiang and Chuang, "Confident learning", 2021; Kuan and Mueller,
    "Model-agnostic label quality scoring to detect real-world label errors", 2022.

    Args:
      score: one of SCORES.
      probabilities: of the K classes, rows with sum 1. labels: the class that each pair has.

    Raises:
      ValueError: there is no such score.
    """
    p = probabilities.astype(np.float64)
    rows = np.arange(len(p))
    given = p[rows, labels]
    if score == "self_confidence":
        return 1 - given
    if score == "normalized_margin":
        others = p.copy()
        others[rows, labels] = -1
        return (1 + others.max(1) - given) / 2
    if score == "confidence_weighted_entropy":
        entropy = -(p * np.log(np.maximum(p, _LEAST))).sum(1) / np.log(p.shape[1])
        ratio = np.maximum(entropy, _LEAST) / np.maximum(given, _LEAST)
        return 1 - np.log1p(ratio) / ratio
    raise ValueError(f"there is no score {score!r}: give one of {', '.join(SCORES)}")


class Errors(NamedTuple):
    """How many of N labels are wrong, as `estimate` finds it; numbers are of pairs.

    wrong: the mean of the two estimates, with the `ends` of both. anchors, confident_joint: the
      two, each with its bootstrap interval.
    matrix: `[K, K]`, how many pairs have label i and should have j, the mean of both; its sum is N.
    probability: `[N]`, how likely each label is wrong. between: `[2, N]`, by either estimate alone.
    above_majority: how much more often the predictions agree with the labels than the most frequent
      label does, as a share of the pairs.
    sure: a cautious estimate of the share of right predictions (`estimate`). Below SURE nothing
      tells wrong labels from hard pairs, and only the upper end of `wrong` stands.
    """

    wrong: dict[str, float | None]
    anchors: dict[str, float | None]
    confident_joint: dict[str, float | None]
    matrix: Float64[np.ndarray, "K K"]
    probability: Float64[np.ndarray, "N"]
    between: Float64[np.ndarray, "2 N"]
    above_majority: dict[str, float | None]
    sure: float


def ends(
    anchors: Mapping[str, float | None], confident_joint: Mapping[str, float | None]
) -> tuple[float, float]:
    """The least and the greatest number of wrong labels, from the intervals of both estimates.

    They go from the lower end of the one to the upper end of the other. That of the anchors is
    taken WIDENED times as far below the estimate: a few anchors are not of their class, and the
    bootstrap, which holds them as they are, does not see it. As it is, that end is above the true
    number of small shops too often (benchmarks/audit.py).
    """
    value, low = anchors["value"] or 0.0, anchors["low"] or 0.0
    lows = (max(value - WIDENED * (value - low), 0.0), confident_joint["low"] or 0.0)
    return min(lows), max(one["high"] or 0.0 for one in (anchors, confident_joint))


def estimate(
    probabilities: Float[np.ndarray, "N K"],
    labels: Int[np.ndarray, "N"],
    query_index: Int[np.ndarray, "N"],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Errors:
    """How many labels are wrong, from the predictions of models that did not learn from them.

    Two estimates of Q_ij, the share of pairs with label i that should have label j:

        anchors          the ANCHORS likeliest pairs of class j (a share of those labelled j) surely
                         are of it, so their labels show T_ji = p(label i | should be j); with π for
                         which the labels are as frequent as they are, Q_ij = π_j T_ji
        confident joint  a pair counts for the class j in which it is above the mean probability of
                         the pairs labelled j (the likeliest of such j); rows are scaled to how
                         often each label is given

    The first sees no error that hits hard pairs alone. The second counts mistakes of the model as
    errors of the labels. So the number mostly lies between: benchmarks/audit.py measures both, and
    that the plain sum of 1 − p_y is several times too high, because a pair is uncertain for other
    reasons too. Intervals are percentiles of a bootstrap over queries, with anchors and thresholds
    held as they are.

    Where the model is not good enough, both are too high, without a limit. How good it is shows in

        sure = share of pairs with the predicted label / the largest T_jj, of PUREST at least

    the share of right predictions, if all labels had only as much noise as the surest ones. Where
    that is below SURE, `wrong` is to be read as "at most" (benchmarks/audit.py).

    A label's own chance to be wrong is that under Q, given the pair's prediction p (`tempered`):

        p(wrong) = 1 − T_yy η_y / Σ_j T_jy η_j        η = the positive part of p T⁻¹, scaled

    Source: Patrini et al., "Making deep neural networks robust to label noise", 2017 (anchors);
    Northcutt, Jiang and Chuang, "Confident learning", 2021 (confident joint, as cleanlab's).

    Args:
      probabilities: of the K classes, rows with sum 1.
      labels: the class that each pair has. query_index: the query of each pair, from 0.
      resamples, seed: as in `intervals.resampling`.
    """
    classes, pairs = probabilities.shape[1], len(labels)
    p = probabilities.astype(np.float64)
    queries = int(query_index.max()) + 1
    shape = (queries, classes, classes)
    sure, joint = np.zeros(shape), np.zeros(shape)
    thresholds = np.full(classes, np.inf)
    purest = 0.0
    for place in np.unique(labels):
        of_class = labels == place
        thresholds[place] = p[of_class, place].mean()
        rows = _anchors(p[:, place], int(of_class.sum()))
        purest = max(purest, float((labels[rows] == place).mean()))
        np.add.at(sure, (query_index[rows], place, labels[rows]), 1)
    confident = np.where(p >= thresholds, p, -1.0)
    counted = confident.max(1) >= 0
    np.add.at(joint, (query_index[counted], labels[counted], confident[counted].argmax(1)), 1)
    given = np.zeros((queries, classes))
    np.add.at(given, (query_index, labels), 1)
    most = int(np.bincount(labels, minlength=classes).argmax())
    gained = np.bincount(query_index, (p.argmax(1) == labels) * 1.0 - (labels == most), queries)
    counts = np.concatenate(
        [gained[:, None], given, sure.reshape(queries, -1), joint.reshape(queries, -1)], 1
    )

    samples = [
        _statistics(draws @ counts, classes)
        for draws in intervals.resampling(queries, resamples=resamples, seed=seed)
    ]
    whole = _statistics(counts.sum(0, keepdims=True), classes)
    both = [
        intervals.interval(
            pairs * _wrong(whole[place])[0],
            pairs * np.concatenate([_wrong(one[place]) for one in samples]),
        )
        for place in range(2)
    ]
    above = np.concatenate([one[2] for one in samples])
    matrices = [whole[0][0], whole[1][0], (whole[0][0] + whole[1][0]) / 2]
    calibrated = tempered(p, labels)
    low, high = ends(*both)
    chances = [_chances(calibrated, matrix, labels) for matrix in matrices]
    return Errors(
        wrong={"value": pairs * float(_wrong(matrices[2])), "low": low, "high": high},
        anchors=both[0],
        confident_joint=both[1],
        matrix=pairs * matrices[2],
        probability=chances[2],
        between=np.stack(chances[:2]),
        above_majority=intervals.interval(float(whole[2][0]), above),
        sure=min(float((p.argmax(1) == labels).mean() / max(purest, PUREST)), 1.0),
    )


def tempered(
    probabilities: Float[np.ndarray, "N K"], labels: Int[np.ndarray, "N"]
) -> Float64[np.ndarray, "N K"]:
    """The probabilities to the power b, with sum 1 again; b is likeliest for the labels.

    Source: Guo et al., "On calibration of modern neural networks", 2017.
    """
    logits = np.log(np.maximum(probabilities.astype(np.float64), _LEAST))

    def powered(b: float) -> np.ndarray:
        scaled = b * logits
        scaled -= scaled.max(1, keepdims=True)
        scaled = np.exp(scaled)
        return scaled / scaled.sum(1, keepdims=True)

    def loss(log_b: float) -> float:
        chosen = powered(np.exp(log_b))[np.arange(len(labels)), labels]
        return -float(np.log(np.maximum(chosen, _LEAST)).mean())

    best = optimize.minimize_scalar(loss, bounds=(-4, 3), method="bounded")
    return powered(float(np.exp(best.x)))


def _anchors(probability: np.ndarray, pairs: int) -> np.ndarray:
    """The pairs that are likeliest of a class which so many pairs are labelled with."""
    number = min(max(int(np.ceil(ANCHORS * pairs)), FEWEST), pairs)
    return np.argsort(-probability, kind="stable")[:number]


def _wrong(joint: np.ndarray) -> np.ndarray:
    """The share of wrong labels of joint distributions `[..., K, K]`."""
    return 1 - joint.trace(axis1=-2, axis2=-1)


def _statistics(counts: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The joint distribution by anchors and the confident one `[R, K, K]`, and `above_majority`."""
    gained, given, sure, joint = np.split(
        counts, np.cumsum([1, classes, classes * classes]), axis=1
    )
    sure, joint = (one.reshape(-1, classes, classes) for one in (sure, joint))
    total = np.maximum(given.sum(1, keepdims=True), 1)
    shares = given / total
    noise = _rows(sure)  # row j: the labels of pairs that should have j
    true = np.maximum((np.linalg.pinv(noise.transpose(0, 2, 1)) @ shares[..., None])[..., 0], 0)
    true /= np.maximum(true.sum(1, keepdims=True), _LEAST)
    by_anchors = (true[..., None] * noise).transpose(0, 2, 1)
    return by_anchors, shares[..., None] * _rows(joint), (gained / total)[:, 0]


def _rows(counts: np.ndarray) -> np.ndarray:
    """Rows `[..., K, K]` scaled to sum 1; that of the class itself where there is none to scale."""
    rows = counts.sum(-1, keepdims=True)
    return np.where(rows > 0, counts / np.maximum(rows, _LEAST), np.eye(counts.shape[-1]))


def _chances(p: np.ndarray, joint: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How likely each label is wrong `[N]`."""
    noise = _rows(joint.T)
    right = np.maximum(p @ np.linalg.pinv(noise), _FLOOR)
    right /= right.sum(1, keepdims=True)
    rows = np.arange(len(p))
    seen = (right @ noise)[rows, labels]
    return 1 - noise.diagonal()[labels] * right[rows, labels] / np.maximum(seen, _LEAST)
