"""Scores of training pairs, high for hard or suspected, from what `evidence` knows.

Every function takes an Evidence and returns float [Q, W]; places without a pair hold anything.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from sie_bench import model
from sie_bench.evidence import REFERENCE, Evidence
from sie_bench.model import CLASSES
from sie_bench.shops import Lists
from sie_jax.importance import doubtful, reference, trajectory

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
_AGAIN = 1  # times that the corrector is fitted again; a second time adds little


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


def doubtful_groups(seen: Evidence) -> np.ndarray:
    """`sie_jax.importance.doubtful.doubtful_groups`, of queries and sellers."""
    mask = seen.lists.mask
    found = np.zeros(mask.shape)
    groups = doubtful.Groups(_queries(seen)[mask], sellers=seen.lists.brand[mask])
    found[mask] = doubtful.doubtful_groups(seen.held_out[mask], seen.labels[mask], groups)
    return found


def against_trusted(seen: Evidence) -> np.ndarray:
    """Less ⟨c_i, the gradient of the trusted lists⟩, held out: the pair undoes what they teach."""
    return -seen.left_out.along


def query_against_trusted(seen: Evidence) -> np.ndarray:
    """The mean of that over the query."""
    return group_mean(against_trusted(seen), _queries(seen), seen.lists.mask)


def seller_against_trusted(seen: Evidence) -> np.ndarray:
    """The mean of that over the seller."""
    return group_mean(against_trusted(seen), seen.lists.brand, seen.lists.mask)


@functools.lru_cache(maxsize=3)  # several policies of one shop ask for it and for its halves
def corrected(seen: Evidence) -> np.ndarray:
    """P(right grade | what is known of the pair) [Q, W, K], learnt from the trusted lists.

    Trees learn the right grades of their 100 lists from the label as given, the held-out
    probabilities, the features, the place in the result list, the mean held-out loss of the query,
    and the share of the seller's trusted pairs whose label was wrong and which became E, each
    without the pair's own query. A corrector after Zheng et al. 2021 (meta label correction), on
    held-out evidence and fitted once.
    """
    return _corrected(seen, seen.held_out, seen.trusted_held_out)


@functools.lru_cache(maxsize=3)
def corrected_again(seen: Evidence) -> np.ndarray:
    """`corrected` once more, with models of the folds trained on the targets before.

    What those hold out is nearer to the right grades, and so are the trees that see it.
    """
    targets = corrected(seen)
    for number in range(_AGAIN):
        targets = _corrected(seen, *_held_out_of(seen, targets.astype(np.float32), number))
    return targets


def _held_out_of(seen: Evidence, targets: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Held-out probabilities of the training lists and the trusted ones, by models of targets."""
    held_out, of_trusted = np.empty_like(seen.held_out), []
    for fold in range(seen.folds.max() + 1):
        inside, others = np.flatnonzero(seen.folds == fold), np.flatnonzero(seen.folds != fold)
        lists = seen.lists.take(others)
        treatment = model.plain(seen.labels[others], lists.mask)._replace(targets=targets[others])
        seed = 3000 + 10 * number + fold
        run = model.train(lists, seen.shop.idf, treatment, REFERENCE, seed)
        params = run.at(REFERENCE.epochs - 1)
        held_out[inside] = model.predict(params, seen.lists.take(inside))
        of_trusted.append(model.predict(params, seen.trusted.lists))
    return held_out, np.mean(of_trusted, 0)


def _corrected(seen: Evidence, held_out: np.ndarray, of_trusted: np.ndarray) -> np.ndarray:
    import lightgbm  # tests of the rest need none

    some, labels = seen.trusted.lists, seen.trusted.labels
    mask = some.mask
    wrong = (labels != some.truth).astype(float)
    signals = np.stack([wrong, wrong * (labels == CLASSES - 1)])
    sellers = [seller_shares(one, some, seen.lists.brand) for one in signals]
    of_own, of_all = zip(*sellers, strict=True)
    x = _inputs(some, labels, of_trusted, of_own)[mask]
    y = _inputs(seen.lists, seen.labels, held_out, of_all)
    data = lightgbm.Dataset(x, some.truth[mask], categorical_feature=[0])
    trees = lightgbm.train(_TREES, data, _ROUNDS)
    found = np.asarray(trees.predict(y.reshape(-1, y.shape[-1]), num_threads=1))
    return found.reshape(*seen.labels.shape, CLASSES)


def seller_shares(
    signal: np.ndarray, lists: Lists, asked: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The share of each seller's pairs that have a signal: (Σ + 2 m) / (n + 2), m the mean of all.

    Of the lists' own pairs [Q, W] without those of the same list; and of the sellers `asked` [...].
    """
    mask = lists.mask
    sellers = 1 + max(lists.brand.max(), asked.max())
    rows = np.broadcast_to(np.arange(len(mask))[:, None], mask.shape)
    own, number = np.zeros((2, len(mask), sellers))
    np.add.at(own, (rows[mask], lists.brand[mask]), signal[mask])
    np.add.at(number, (rows[mask], lists.brand[mask]), 1)
    mean = signal[mask].mean()
    left = (own.sum(0) - own + 2 * mean) / (number.sum(0) - number + 2)
    every = (own.sum(0) + 2 * mean) / (number.sum(0) + 2)
    return left[rows, lists.brand], every[asked]


def _inputs(
    lists: Lists, labels: np.ndarray, probabilities: np.ndarray, sellers: Sequence[np.ndarray]
) -> np.ndarray:
    """What the trees see of each pair [Q, W, ...]."""
    own = loss(probabilities, labels)
    rows = np.broadcast_to(np.arange(len(labels))[:, None], labels.shape)
    columns = (labels, own, group_mean(own, rows, lists.mask), lists.position, *sellers)
    stacked = [one[..., None] for one in columns]
    return np.concatenate([*stacked, np.log(probabilities + 1e-4), lists.features], -1)


def correction(seen: Evidence) -> np.ndarray:
    """1 - P(the label is right) by `corrected`."""
    return 1 - given(corrected(seen), seen.labels)


def correction_again(seen: Evidence) -> np.ndarray:
    """1 - P(the label is right) by `corrected_again`."""
    return 1 - given(corrected_again(seen), seen.labels)


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
        doubtful_groups,
    )
}
"""What needs the faulty labels alone: access a."""
TRUSTING: dict[str, Callable[[Evidence], np.ndarray]] = {
    one.__name__: one
    for one in (
        against_trusted,
        query_against_trusted,
        seller_against_trusted,
        correction,
        correction_again,
    )
}
"""What needs the trusted lists too: access b."""
SCORES = {**BLIND, **TRUSTING}
