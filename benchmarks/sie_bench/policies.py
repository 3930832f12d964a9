"""Policies of the bench: what they make of labels and scores, as a Treatment of training.

The pure parts take arrays. What chooses a share or a strength takes it as an argument; the grid
(`arms`) says which.
"""

import jax.numpy as jnp
import numpy as np

from sie_bench import model, scores
from sie_bench.evidence import Evidence
from sie_bench.model import CLASSES, Treatment
from sie_jax.data.sources.market.needs import IRRELEVANT
from sie_jax.importance import policies as library

ONE_HOT = np.eye(CLASSES, dtype=np.float32)


def weighed(policy: library.Policy, values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """N times the weights [Q, W] that a policy of `sie_jax.importance` gives scores [Q, W] >= 0."""
    found = np.zeros(mask.shape, np.float32)
    inside = values[mask]
    weights = policy(jnp.asarray(inside - min(inside.min(), 0.0), jnp.float32))
    found[mask] = np.asarray(weights) * mask.sum()
    return found


def kept(values: np.ndarray, mask: np.ndarray, share: float) -> np.ndarray:
    """Which pairs [Q, W] stay where the `share` with the lowest scores does; ties by place."""
    places = np.flatnonzero(mask.ravel())
    order = places[np.argsort(values.ravel()[places], kind="stable")]
    found = np.zeros(mask.size, bool)
    found[order[: round(share * len(order))]] = True
    return found.reshape(mask.shape)


def banded(values: np.ndarray, labels: np.ndarray, mask: np.ndarray, share: float) -> np.ndarray:
    """`kept` within each given label, so that the shares of labels stay as they are."""
    parts = [kept(values, mask & (labels == label), share) for label in range(CLASSES)]
    return np.any(parts, axis=0)


def mixture(labels: np.ndarray, probabilities: np.ndarray, strength: float) -> np.ndarray:
    """Targets (1 - a) onehot(y) + a p [Q, W, K] (Reed et al. 2015, soft, with held-out p)."""
    return ((1 - strength) * ONE_HOT[labels] + strength * probabilities).astype(np.float32)


def confident_transition(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """p(given label | right one) [K, K] by held-out probabilities p [N, K] of labels [N].

    The confident joint (Northcutt et al. 2021): a pair counts for the class j whose probability is
    at least the mean p_j of pairs labelled j, the largest of such; rows are normalised, with one
    more count on the diagonal.
    """
    thresholds = np.array(
        [
            probabilities[labels == one, one].mean() if (labels == one).any() else np.inf
            for one in range(CLASSES)
        ]
    )
    above = np.where(probabilities >= thresholds, probabilities, -1.0)
    sure = above.max(1) >= 0
    joint = np.eye(CLASSES)
    np.add.at(joint, (above.argmax(1)[sure], labels[sure]), 1)
    return joint / joint.sum(1, keepdims=True)


def counted_transition(truth: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """p(given label | right one) [K, K] counted over trusted pairs; 1 is added to the diagonal.

    Source: after Hendrycks et al. 2018 (gold loss correction), whose counts are of predictions.
    """
    joint = np.eye(CLASSES)
    np.add.at(joint, (truth, labels), 1)
    return joint / joint.sum(1, keepdims=True)


def posterior(probabilities: np.ndarray, labels: np.ndarray, transition: np.ndarray) -> np.ndarray:
    """Targets ∝ T[k, y] p(k) [..., K], with p(right grade) from held-out p(given label) by EM.

    p(given) = T' p(right) is solved per pair for p(right) >= 0 by 20 rounds of expectation and
    maximisation (Richardson-Lucy), from uniform.
    """
    right = np.full_like(probabilities, 1 / CLASSES, dtype=np.float64)
    for _ in range(20):
        ratio = probabilities / np.maximum(right @ transition, 1e-9)
        right = right * (ratio @ transition.T)
        right /= np.maximum(right.sum(-1, keepdims=True), 1e-9)
    found = right * transition[:, labels].transpose(*range(1, labels.ndim + 1), 0)
    return (found / np.maximum(found.sum(-1, keepdims=True), 1e-9)).astype(np.float32)


def settled(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights max_k p_k [Q, W] and targets [Q, W, K] for P(right grade) p [Q, W, K].

    The label as given where p_y >= 1/2, and p elsewhere.
    """
    trusted = scores.given(probabilities, labels)[..., None] >= 0.5
    targets = np.where(trusted, ONE_HOT[labels], probabilities).astype(np.float32)
    return probabilities.max(-1), targets


def unbiased(labels: np.ndarray, propensity: np.ndarray, least: float = 0.2) -> np.ndarray:
    """Targets [Q, W, K] whose mean over who is looked at is that of the truth (inverse propensity).

    A pair with a grade y > I counts 1/p for y and 1 - 1/p for I; an I counts 1 for I. p is at least
    `least`. Source: Saito et al. 2020, "Unbiased recommender learning from missing-not-at-random
    implicit feedback", equation 8.
    """
    found = ONE_HOT[labels].copy()
    seen = labels != IRRELEVANT
    share = 1 / np.maximum(propensity[seen], least)
    found[seen, labels[seen]] = share
    found[seen, IRRELEVANT] = 1 - share
    return found


# What each arm of the grid does, by its policy's name: (evidence, score, strength) -> Treatment


def uniform(seen: Evidence, score: str, strength: float) -> Treatment:
    """Every pair alike."""
    return model.plain(seen.labels, seen.lists.mask)


def keep(seen: Evidence, score: str, strength: float) -> Treatment:
    """The share `strength` with the lowest scores."""
    stay = kept(scores.SCORES[score](seen), seen.lists.mask, strength)
    return Treatment(stay.astype(np.float32), ONE_HOT[seen.labels])


def keep_hardest(seen: Evidence, score: str, strength: float) -> Treatment:
    """The share with the highest scores: the other sign."""
    stay = kept(-scores.SCORES[score](seen), seen.lists.mask, strength)
    return Treatment(stay.astype(np.float32), ONE_HOT[seen.labels])


def keep_banded(seen: Evidence, score: str, strength: float) -> Treatment:
    """`keep` within each given label."""
    stay = banded(scores.SCORES[score](seen), seen.labels, seen.lists.mask, strength)
    return Treatment(stay.astype(np.float32), ONE_HOT[seen.labels])


def clipped(seen: Evidence, score: str, strength: float) -> Treatment:
    """No pair pulls harder than the median one."""
    found = weighed(library.Clipped(), scores.SCORES[score](seen), seen.lists.mask)
    return Treatment(found, ONE_HOT[seen.labels])


def inverse(seen: Evidence, score: str, strength: float) -> Treatment:
    """The harder, the less."""
    found = weighed(library.Inverse(), scores.SCORES[score](seen), seen.lists.mask)
    return Treatment(found, ONE_HOT[seen.labels])


def believe(seen: Evidence, score: str, strength: float) -> Treatment:
    """Pairs weigh 1 - score, where the score is the chance that the label is wrong."""
    found = seen.lists.mask * (1 - scores.SCORES[score](seen))
    return Treatment(found.astype(np.float32), ONE_HOT[seen.labels])


def doubtful_groups(seen: Evidence, score: str, strength: float) -> Treatment:
    """Pairs weigh 1 - the chance that their query or seller is not to be believed.

    Where no such group is found this is uniform. It needs no right label and asks no validation
    query.
    """
    return believe(seen, "doubtful_groups", strength)


def small_loss(seen: Evidence, score: str, strength: float) -> Treatment:
    """The hardest `strength` of each batch is left out after one epoch (Han et al. 2018)."""
    return uniform(seen, score, strength)._replace(dropped=strength)


def truncated(seen: Evidence, score: str, strength: float) -> Treatment:
    """Pairs weigh p_y^β in training: the re-weighted loss of Wang et al. 2021, for all labels."""
    return uniform(seen, score, strength)._replace(power=strength)


def soften(seen: Evidence, score: str, strength: float) -> Treatment:
    """Targets between the label and the held-out probabilities."""
    found = mixture(seen.labels, seen.held_out, strength)
    return uniform(seen, score, strength)._replace(targets=found)


def confident_forward(seen: Evidence, score: str, strength: float) -> Treatment:
    """Forward correction by `confident_transition`."""
    mask = seen.lists.mask
    found = confident_transition(seen.held_out[mask], seen.labels[mask])
    return uniform(seen, score, strength)._replace(transition=found)


def counted_forward(seen: Evidence, score: str, strength: float) -> Treatment:
    """Forward correction by `counted_transition` of the trusted lists."""
    return uniform(seen, score, strength)._replace(transition=_counted(seen))


def counted_posterior(seen: Evidence, score: str, strength: float) -> Treatment:
    """Targets by `posterior` with the counted transition."""
    found = posterior(seen.held_out, seen.labels, _counted(seen))
    return uniform(seen, score, strength)._replace(targets=found)


def corrected(seen: Evidence, score: str, strength: float) -> Treatment:
    """Targets by `scores.corrected`: what trees make of the pair after the trusted lists."""
    found = mixture(seen.labels, scores.corrected(seen), strength)
    return uniform(seen, score, strength)._replace(targets=found)


def corrected_again(seen: Evidence, score: str, strength: float) -> Treatment:
    """Targets by `scores.corrected_again`."""
    found = mixture(seen.labels, scores.corrected_again(seen), strength)
    return uniform(seen, score, strength)._replace(targets=found)


def settle(seen: Evidence, score: str, strength: float) -> Treatment:
    """`settled` by `scores.corrected_again`: suspects are corrected, the unsure weigh less."""
    weights, targets = settled(scores.corrected_again(seen), seen.labels)
    return Treatment((seen.lists.mask * weights).astype(np.float32), targets)


def inverse_propensity(seen: Evidence, score: str, strength: float) -> Treatment:
    """Targets by `unbiased`, with the propensities that the fault `position` really has."""
    found = unbiased(seen.labels, seen.propensity)
    return uniform(seen, score, strength)._replace(targets=found)


def oracle_drop(seen: Evidence, score: str, strength: float) -> Treatment:
    """Without the wrong labels: nobody knows them."""
    return uniform(seen, score, strength)._replace(
        weights=(seen.lists.mask & ~seen.wrong).astype(np.float32)
    )


def clean(seen: Evidence, score: str, strength: float) -> Treatment:
    """All labels right: what the fault costs is this less uniform, the headroom."""
    return model.plain(seen.truth, seen.lists.mask)


def _counted(seen: Evidence) -> np.ndarray:
    trusted = seen.trusted
    mask = trusted.lists.mask
    return counted_transition(trusted.lists.truth[mask], trusted.labels[mask])
