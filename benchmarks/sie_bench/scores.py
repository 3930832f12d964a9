"""Scores of training pairs, high for hard or suspected, from what `evidence` knows.

Every function takes an Evidence and returns float [Q, W]; places without a pair hold anything.
"""

import functools
from collections.abc import Callable

import lightgbm
import numpy as np

from sie_bench.evidence import Evidence
from sie_bench.model import CLASSES
from sie_jax.importance import reference, trajectory

TINY = 1e-9
_SHRINK = 5.0  # pairs that the mean of all weighs in a group's mean
_TREES = {
    "objective": "multiclass",
    "num_class": CLASSES,
    "learning_rate": 0.1,
    "num_leaves": 7,
    "min_data_in_leaf": 20,
    "lambda_l2": 1.0,
    "feature_fraction": 0.8,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "seed": 0,
    "verbosity": -1,
}
_ROUNDS = 40


def given(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """p_y [..., Q, W] of probabilities [..., Q, W, K]."""
    return np.take_along_axis(probabilities, labels[..., None], -1)[..., 0]


def loss(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-log p_y."""
    return -np.log(given(probabilities, labels) + TINY)


def group_mean(
    values: np.ndarray, groups: np.ndarray, where: np.ndarray, *, others: bool = False
) -> np.ndarray:
    """For each pair the mean of its group, shrunken to that of all: (Σ v + s m) / (n + s), s = 5.

    values, groups (int >= 0), where: of one shape. others: without the pair itself.
    """
    total = np.bincount(groups[where], values[where], groups.max() + 1)[groups]
    count = np.bincount(groups[where], minlength=groups.max() + 1)[groups]
    if others:
        total, count = total - np.where(where, values, 0), count - where
    return (total + _SHRINK * values[where].mean()) / (count + _SHRINK)


def chance(seen: Evidence) -> np.ndarray:
    """Random numbers: a control."""
    return np.random.default_rng([seen.shop.seed, 40]).random(seen.labels.shape)


def permuted(seen: Evidence) -> np.ndarray:
    """The held-out losses, each given to another pair: a control."""
    found, mask = held_out_loss(seen), seen.lists.mask
    found[mask] = np.random.default_rng([seen.shop.seed, 41]).permutation(found[mask])
    return found


def first_loss(seen: Evidence) -> np.ndarray:
    """In sample, after one epoch."""
    return loss(seen.history[0], seen.labels)


def mean_loss(seen: Evidence) -> np.ndarray:
    """In sample, the mean over epochs (1 - confidence of Swayamdipta et al. 2020, in nats)."""
    return loss(seen.history, seen.labels[None].repeat(len(seen.history), 0)).mean(0)


def last_loss(seen: Evidence) -> np.ndarray:
    """In sample, after the last epoch."""
    return loss(seen.history[-1], seen.labels)


def first_el2n(seen: Evidence) -> np.ndarray:
    """‖p - onehot(y)‖ in sample, after one epoch (Paul et al. 2021)."""
    return np.linalg.norm(seen.history[0] - np.eye(CLASSES)[seen.labels], axis=-1)


def area_under_margin(seen: Evidence) -> np.ndarray:
    """Less the mean over epochs of log p_y - max log p_c (Pleiss et al. 2020)."""
    log_p = np.log(seen.history + TINY)
    own = given(log_p, seen.labels[None].repeat(len(log_p), 0))
    other = np.where(np.eye(CLASSES, dtype=bool)[seen.labels], -np.inf, log_p).max(-1)
    margins = (own - other).reshape(len(log_p), -1)
    return -trajectory.area_under_margin(margins).reshape(seen.labels.shape)


def first_norm(seen: Evidence) -> np.ndarray:
    """The exact gradient norm in sample, after one epoch."""
    return seen.first.norm


def held_out_loss(seen: Evidence) -> np.ndarray:
    """-log p_y of models that have not seen the list."""
    return loss(seen.held_out, seen.labels)


def confident(seen: Evidence) -> np.ndarray:
    """Confident learning on held-out probabilities (Northcutt et al. 2021)."""
    mask = seen.lists.mask
    wide = seen.held_out[mask].astype(np.float64)
    found = np.zeros(mask.shape)
    wide /= wide.sum(1, keepdims=True)
    found[mask] = reference.confident_learning(seen.labels[mask], wide).score
    return found


def held_out_norm(seen: Evidence) -> np.ndarray:
    """The exact gradient norm by models that have not seen the list."""
    return seen.left_out.norm


def against_list(seen: Evidence) -> np.ndarray:
    """Less the cosine of the pair's contribution and that of the rest of its list, held out."""
    return -seen.left_out.with_list


def query_loss(seen: Evidence) -> np.ndarray:
    """The mean held-out loss of the query's pairs: a careless annotator spoils whole queries."""
    return group_mean(held_out_loss(seen), _queries(seen), seen.lists.mask)


def query_norm(seen: Evidence) -> np.ndarray:
    """The exact norm of the list's whole gradient, held out: bias within a list adds up in it."""
    return np.broadcast_to(seen.left_out.list_norm[:, None], seen.labels.shape)


def seller_labels(seen: Evidence) -> np.ndarray:
    """KL(labels of the pair's seller ‖ labels of all): sellers do not differ so much by chance."""
    mask = seen.lists.mask
    counts = np.zeros((seen.lists.brand.max() + 1, CLASSES))
    np.add.at(counts, (seen.lists.brand[mask], seen.labels[mask]), 1)
    overall = counts.sum(0) / counts.sum()
    share = (counts + 5 * overall) / (counts + 5 * overall).sum(1, keepdims=True)
    return (share * np.log(share / overall)).sum(1)[seen.lists.brand]


def against_trusted(seen: Evidence) -> np.ndarray:
    """Less ⟨c_i, the gradient of the trusted lists⟩, held out: the pair undoes what they teach."""
    return -seen.left_out.along


def query_against_trusted(seen: Evidence) -> np.ndarray:
    """The mean of that over the query."""
    return group_mean(against_trusted(seen), _queries(seen), seen.lists.mask)


def seller_against_trusted(seen: Evidence) -> np.ndarray:
    """The mean of that over the seller."""
    return group_mean(against_trusted(seen), seen.lists.brand, seen.lists.mask)


@functools.lru_cache(maxsize=1)  # several policies of one shop ask for it
def corrected(seen: Evidence) -> np.ndarray:
    """P(right grade | what is known of the pair) [Q, W, K], learnt from the trusted lists.

    Trees learn the right grades of their 100 lists from the label as given, the held-out
    probabilities, the features, the place in the result list, the mean held-out loss of the query,
    and the share of the seller's trusted pairs whose label was wrong and which became E, each
    without the pair's own query. A corrector after Zheng et al. 2021 (meta label correction), on
    held-out evidence and fitted once.
    """
    trusted = seen.trusted
    some, labels = trusted.lists, trusted.labels
    mask = some.mask
    wrong = (labels != some.truth).astype(float)
    brands = 1 + max(seen.lists.brand.max(), some.brand.max())
    queries = np.broadcast_to(np.arange(len(labels))[:, None], labels.shape)
    totals, counts = np.zeros((2, brands)), np.zeros(brands)
    signals = np.stack([wrong, wrong * (labels == CLASSES - 1)])
    np.add.at(counts, some.brand[mask], 1)
    for total, signal in zip(totals, signals, strict=True):
        np.add.at(total, some.brand[mask], signal[mask])
    mean = np.array([signal[mask].mean() for signal in signals])
    # without the pair's own query
    own_count = np.zeros((len(labels), brands))
    np.add.at(own_count, (queries[mask], some.brand[mask]), 1)
    left = []
    for total, signal, average in zip(totals, signals, mean, strict=True):
        own = np.zeros((len(labels), brands))
        np.add.at(own, (queries[mask], some.brand[mask]), signal[mask])
        rest, number = (total - own), (counts - own_count)
        left.append(((rest + 2 * average) / (number + 2))[queries, some.brand])
    seller = (totals + 2 * mean[:, None]) / (counts + 2)

    def inputs(lists, labels, probabilities, sellers):
        own = loss(probabilities, labels)
        rows = np.broadcast_to(np.arange(len(labels))[:, None], labels.shape)
        return np.concatenate(
            [
                labels[..., None],
                np.log(probabilities + 1e-4),
                own[..., None],
                group_mean(own, rows, lists.mask)[..., None],
                lists.position[..., None],
                np.stack(sellers, -1),
                lists.features,
            ],
            -1,
        )

    x = inputs(some, labels, seen.trusted_held_out, left)[mask]
    y = inputs(seen.lists, seen.labels, seen.held_out, seller[:, seen.lists.brand])
    trees = lightgbm.train(
        _TREES, lightgbm.Dataset(x, some.truth[mask], categorical_feature=[0]), _ROUNDS
    )
    found = np.asarray(trees.predict(y.reshape(-1, y.shape[-1]), num_threads=1))
    return found.reshape(*seen.labels.shape, CLASSES)


def correction(seen: Evidence) -> np.ndarray:
    """1 - P(the label is right) by `corrected`."""
    return 1 - given(corrected(seen), seen.labels)


def _queries(seen: Evidence) -> np.ndarray:
    return np.broadcast_to(np.arange(len(seen.labels))[:, None], seen.labels.shape)


BLIND: dict[str, Callable[[Evidence], np.ndarray]] = {
    one.__name__: one
    for one in (
        chance,
        permuted,
        first_loss,
        mean_loss,
        last_loss,
        first_el2n,
        area_under_margin,
        first_norm,
        held_out_loss,
        confident,
        held_out_norm,
        against_list,
        query_loss,
        query_norm,
        seller_labels,
    )
}
"""What needs the faulty labels alone: access a."""
TRUSTING: dict[str, Callable[[Evidence], np.ndarray]] = {
    one.__name__: one
    for one in (against_trusted, query_against_trusted, seller_against_trusted, correction)
}
"""What needs the trusted lists too: access b."""
SCORES = {**BLIND, **TRUSTING}
