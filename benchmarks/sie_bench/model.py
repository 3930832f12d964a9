"""The bench's ranker: words matched by vectors, features, one hidden layer; trained in a second."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from sie_bench.shops import GAINS, WORDS, Lists

CLASSES = len(GAINS)
WARM = 1
"""Epochs without small-loss selection."""
_VECTOR, _HIDDEN = 64, 64
_SCALE = 8.0  # of the product of the two sides' vectors
_CHUNK = 50  # lists whose scores are computed at a time: small buffers are used again
Params = dict[str, Array]


class Setting(NamedTuple):
    """How a run trains: AdamW whose learning rate falls to 0 by a cosine."""

    epochs: int
    decay: float
    rate: float = 0.01
    batch: int = 10  # lists of a step


class Treatment(NamedTuple):
    """What a policy makes of the training labels; `plain` is that of uniform.

    weights [Q, W] >= 0, 0 where there is no pair. targets [Q, W, K]: label distributions; a row
    may be negative, as an unbiased estimate is. transition [K, K]: p(given label | right one), by
    which predictions are multiplied before the loss. dropped: the share of the hardest pairs of
    each batch that is left out after WARM epochs. power: pairs weigh p(label)^power.
    """

    weights: np.ndarray
    targets: np.ndarray
    transition: np.ndarray = np.eye(CLASSES)
    dropped: float = 0.0
    power: float = 0.0


def plain(labels: np.ndarray, mask: np.ndarray) -> Treatment:
    """Every pair alike, labels [Q, W] as they are."""
    return Treatment(mask.astype(np.float32), np.eye(CLASSES, dtype=np.float32)[labels])


def logits_of(params: Params, words: Array, item_words: Array, features: Array) -> Array:
    """The logits [K] of one pair from its numbers of words [A], [B] and features [F].

    Every query word is matched with the item's word whose vector is nearest, by inner products:
    their mean, weighed by the words' trained weights (idf at first), and their least say how well
    the item explains the query. To these come the product of the two sides' mean vectors, element
    by element, and the features. One hidden layer, beside a linear part.
    """
    asked, given = params["query"][words], params["item"][item_words]
    weight = jnp.where(words > 0, params["word"][words][:, 0], 0.0)
    weight = weight / jnp.maximum(weight.sum(), 1e-6)
    near = jnp.where(item_words > 0, asked @ given.T, -10.0).max(-1)
    least = jnp.where(words > 0, near, 10.0).min()
    known = (item_words > 0).astype(jnp.float32)
    product = (weight @ asked) * (known @ given) / jnp.sqrt(jnp.maximum(known.sum(), 1.0))
    matched = jnp.stack([2 * (near @ weight), 2 * least, jnp.tanh(least)])
    direct = jnp.concatenate([matched, features])
    hidden = jnp.concatenate([_SCALE * product, direct]) @ params["hidden"] + params["bias"]
    return jax.nn.relu(hidden) @ params["out"] + params["start"] + direct @ params["direct"]


logits = jax.vmap(jax.vmap(logits_of, (None, None, 0, 0)), (None, 0, 0, 0))
"""The logits [Q, W, K] of lists."""


def initial(key: Array, idf: Array, features: int) -> Params:
    """The two sides start with equal random vectors: at first equal words match, and no others."""
    keys = jax.random.split(key, 3)
    vectors = jax.random.normal(keys[0], (WORDS, _VECTOR)) / _VECTOR**0.5
    width = _VECTOR + features + 3
    return {
        "query": vectors,
        "item": vectors,
        "word": idf[:, None],
        "hidden": jax.random.normal(keys[1], (width, _HIDDEN)) / width**0.5,
        "bias": jnp.zeros(_HIDDEN),
        "out": jax.random.normal(keys[2], (_HIDDEN, CLASSES)) / _HIDDEN**0.5,
        "start": jnp.zeros(CLASSES),
        "direct": jnp.zeros((features + 3, CLASSES)),
    }


def losses(outputs: Array, targets: Array, transition: Array) -> Array:
    """-Σ_k t_k log Σ_j p_j T_jk for logits [..., K] and targets [..., K]; T = I is cross-entropy.

    Source: Patrini et al. 2017, theorem 2 (forward correction).
    """
    log_p = jax.nn.log_softmax(outputs)
    corrected = jax.nn.logsumexp(log_p[..., :, None] + jnp.log(transition + 1e-9), axis=-2)
    return -(targets * corrected).sum(-1)


class Trained(NamedTuple):
    """The parameters after each epoch, [E, ...] each."""

    params: Params

    def at(self, epoch: int) -> Params:
        return jax.tree.map(lambda leaf: leaf[epoch], self.params)


def train(lists: Lists, idf: np.ndarray, treatment: Treatment, setting: Setting, seed: int):
    """One run from a seed, which draws the start and the order; the same bits each time on CPU."""
    data = lists.words, lists.item_words, lists.features
    numbers = (setting.decay, setting.rate)
    return Trained(
        _train(seed, idf, data, tuple(treatment), numbers, setting.epochs, setting.batch)
    )


@functools.partial(jax.jit, static_argnames=("epochs", "batch"))
def _train(seed: Any, idf: Any, data: Any, treatment: Any, numbers: Any, epochs: int, batch: int):
    weights, targets, transition, dropped, power = treatment
    decay, rate = numbers
    count = weights.shape[0]
    steps = count // batch
    start_key, order_key = jax.random.split(jax.random.key(seed))
    params = initial(start_key, idf, data[2].shape[-1])
    optimizer = optax.adamw(
        lambda step: rate * (1 + jnp.cos(jnp.pi * step / (steps * epochs))) / 2, weight_decay=decay
    )

    def objective(params: Params, rows: Array, dropped: Array) -> Array:
        outputs = logits(params, *(each[rows] for each in data))
        each, weight = losses(outputs, targets[rows], transition), weights[rows]
        stopped = jax.lax.stop_gradient(each)
        ranked = jnp.where(weight > 0, stopped, -jnp.inf).ravel()
        ascending = jnp.sort(jnp.where(jnp.isfinite(ranked), ranked, jnp.inf))
        usable = jnp.isfinite(ranked).sum()
        last = jnp.maximum(usable - jnp.round(dropped * usable).astype(int) - 1, 0)
        weight = weight * (stopped <= ascending[last])
        weight = weight * jnp.where(power > 0, jnp.exp(-power * stopped), 1.0)
        return (weight * each).sum() / jnp.maximum(weight.sum(), 1e-6)

    def step(carry: Any, xs: Any):
        params, state = carry
        updates, state = optimizer.update(jax.grad(objective)(params, *xs), state, params)
        return (optax.apply_updates(params, updates), state), None

    def epoch(carry: Any, xs: Any):
        key, number = xs
        order = jax.random.permutation(key, count)[: steps * batch].reshape(steps, batch)
        share = jnp.where(number < WARM, 0.0, dropped)
        carry, _ = jax.lax.scan(step, carry, (order, jnp.full(steps, share)))
        return carry, carry[0]

    state = optimizer.init(params)
    keys = jax.random.split(order_key, epochs)
    return jax.lax.scan(epoch, (params, state), (keys, jnp.arange(epochs)))[1]


_logits = jax.jit(logits)


def predict(params: Params, lists: Lists) -> np.ndarray:
    """The probabilities [Q, W, K] of the grades."""
    parts = []
    for start in range(0, len(lists.mask), _CHUNK):
        rows = slice(start, start + _CHUNK)
        data = (each[rows] for each in (lists.words, lists.item_words, lists.features))
        parts.append(np.asarray(jax.nn.softmax(_logits(params, *data))))
    return np.concatenate(parts)


def ndcg(scores: np.ndarray, grades: np.ndarray, mask: np.ndarray, at: int = 10) -> np.ndarray:
    """nDCG@10 [Q] of scores [Q, W]; NaN where no pair has a gain. Ties keep their order."""
    order = np.argsort(np.where(mask, -scores, np.inf), 1, kind="stable")
    gains = np.where(mask, GAINS[grades], 0.0)
    discount = 1 / np.log2(np.arange(at) + 2)
    found = np.take_along_axis(gains, order, 1)[:, :at] @ discount
    best = -np.sort(-gains, 1)[:, :at] @ discount
    return np.divide(found, best, out=np.full(len(best), np.nan), where=best > 0)
