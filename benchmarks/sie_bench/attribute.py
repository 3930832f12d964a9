"""Which training lists made a prediction so? Scores of attribution against models trained anew.

The linear datamodelling score (Park et al. 2023, TRAK, section 2): the rank correlation, over
random halves of the training lists, of what the score predicts for a test list, the sum over the
half, and of its loss by a model trained on that half; the mean over test lists. A half takes whole
queries.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from sie_bench import model, shops
from sie_bench.model import Params, Setting
from sie_bench.shops import WIDTH, Lists, Shop
from sie_jax import per_example

SETTING = Setting(4, 1.0)
SUBSETS, TESTED, DIMENSIONS = 50, 200, 1024
SEEDS = (0, 1)
"""Of the models whose gradients are taken."""
RIDGE = 1.0
"""Of `trak`, times the mean eigenvalue; settled on the development shops."""
_CHUNK = 50  # lists whose gradients are made at a time


@dataclass(frozen=True, eq=False)
class Attribution:
    """A shop with what the scores need: the gradients of lists, and models of halves."""

    shop: Shop

    @functools.cached_property
    def tested(self) -> Lists:
        return self.shop.test.take(np.arange(TESTED))

    @functools.cached_property
    def halves(self) -> np.ndarray:
        """The lists [SUBSETS, Q / 2] of each half."""
        rng = np.random.default_rng([self.shop.seed, 60])
        count = len(self.shop.train.mask)
        return np.stack([rng.permutation(count)[: count // 2] for _ in range(SUBSETS)])

    @functools.cached_property
    def losses(self) -> np.ndarray:
        """The mean loss [SUBSETS, TESTED] of each test list by the model of each half."""
        return self._retrained(0)

    @functools.cached_property
    def again(self) -> np.ndarray:
        """The same from other seeds: how far the same halves agree with themselves."""
        return self._retrained(SUBSETS)

    def _retrained(self, first: int) -> np.ndarray:
        found = []
        for place, half in enumerate(self.halves):
            run = _trained(self.shop, self.shop.train.take(half), first + place)
            said = model.predict(run.at(SETTING.epochs - 1), self.tested)
            right = np.take_along_axis(said, self.tested.truth[..., None], -1)[..., 0]
            each = -np.log(right + 1e-9) * self.tested.mask
            found.append(each.sum(1) / self.tested.mask.sum(1))
        return np.stack(found)

    @functools.cached_property
    def runs(self) -> list[model.Trained]:
        """A model of all lists from each of SEEDS."""
        return [_trained(self.shop, self.shop.train, seed) for seed in SEEDS]

    @functools.cache  # noqa: B019 -- an Attribution lives as long as its shop is measured
    def gradients(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The projected gradients of the training lists [Q, D] and of the tested ones [T, D]."""
        params = self.runs[seed].at(epoch)
        return list_gradients(params, self.shop.train), list_gradients(params, self.tested)


def _trained(shop: Shop, lists: Lists, seed: int) -> model.Trained:
    return model.train(lists, shop.idf, model.plain(lists.truth, lists.mask), SETTING, seed)


def list_gradients(params: Params, lists: Lists) -> np.ndarray:
    """The exact gradients of the lists' mean losses by their right labels, projected [Q, D]."""
    parts = []
    for start in range(0, len(lists.mask), _CHUNK):
        some = lists.take(np.arange(start, min(start + _CHUNK, len(lists.mask))))
        data = some.words, some.item_words, some.features, some.truth, some.mask
        parts.append(np.asarray(_projected(params, data)))
    return np.concatenate(parts)


@jax.jit
def _projected(params: Params, data: Any) -> jax.Array:
    words, item_words, features, truth, mask = map(jnp.asarray, data)
    units = (
        jnp.repeat(words, WIDTH, axis=0),
        item_words.reshape(-1, item_words.shape[-1]),
        features.reshape(-1, features.shape[-1]),
    )
    share = (mask / jnp.maximum(mask.sum(1, keepdims=True), 1)).reshape(-1)

    def coupling(outputs: jax.Array, _: Any) -> jax.Array:
        target = jax.nn.one_hot(truth.reshape(-1), model.CLASSES)
        return (model.losses(outputs, target, jnp.eye(model.CLASSES)) * share).sum()

    found = per_example.coupled_value_and_grad(model.logits_of, coupling)(params, units, ())[1]
    return found.lists(len(words)).project(jax.random.key(0), DIMENSIONS)


# The scores: how much each training list [Q] lowers the loss of each tested one [T]


def chance(seen: Attribution) -> np.ndarray:
    """Random numbers: a control."""
    shape = len(seen.shop.train.mask), TESTED
    return np.random.default_rng([seen.shop.seed, 61]).normal(size=shape)


def same_words(seen: Attribution) -> np.ndarray:
    """The cosine of the queries' words, by idf: what needs no model."""
    rows = []
    for lists in (seen.shop.train, seen.tested):
        bag = np.zeros((len(lists.words), shops.WORDS))
        np.put_along_axis(bag, lists.words, 1.0, axis=1)
        bag = bag * seen.shop.idf
        rows.append(bag / np.maximum(np.linalg.norm(bag, axis=1, keepdims=True), 1e-9))
    return rows[0] @ rows[1].T


def norm(seen: Attribution) -> np.ndarray:
    """The norm of the training list's gradient, whatever is tested: a control."""
    ours, _ = seen.gradients(0, SETTING.epochs - 1)
    return np.repeat(np.linalg.norm(ours, axis=1)[:, None], TESTED, axis=1)


def gradient_dot(seen: Attribution) -> np.ndarray:
    """⟨g_i, g_t⟩ at the end of one run."""
    ours, theirs = seen.gradients(0, SETTING.epochs - 1)
    return ours @ theirs.T


def gradient_cosine(seen: Attribution) -> np.ndarray:
    """The cosine of the two (Hanawa et al. 2021)."""
    ours, theirs = seen.gradients(0, SETTING.epochs - 1)
    return _unit(ours) @ _unit(theirs).T


def tracin(seen: Attribution) -> np.ndarray:
    """The mean of ⟨g_i, g_t⟩ over the epochs of a run (Pruthi et al. 2020)."""
    return np.mean([_dot(seen.gradients(0, epoch)) for epoch in range(SETTING.epochs)], 0)


def tracin_of_runs(seen: Attribution) -> np.ndarray:
    """The mean of that over SEEDS."""
    every = [(seed, epoch) for seed in range(len(SEEDS)) for epoch in range(SETTING.epochs)]
    return np.mean([_dot(seen.gradients(*one)) for one in every], 0)


def trak(seen: Attribution) -> np.ndarray:
    """g_i' (G'G + r I)^-1 g_t at the end of one run."""
    return _whitened(seen.gradients(0, SETTING.epochs - 1))


def trak_of_runs(seen: Attribution) -> np.ndarray:
    """The mean of that over SEEDS (Park et al. 2023)."""
    last = SETTING.epochs - 1
    return np.mean([_whitened(seen.gradients(seed, last)) for seed in range(len(SEEDS))], 0)


def _dot(gradients: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return gradients[0] @ gradients[1].T


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _whitened(gradients: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    ours, theirs = (one.astype(np.float64) for one in gradients)
    kernel = ours.T @ ours
    kernel += RIDGE * np.trace(kernel) / len(kernel) * np.eye(len(kernel))
    return ours @ np.linalg.solve(kernel, theirs.T)


SCORES: dict[str, Callable[[Attribution], np.ndarray]] = {
    one.__name__: one
    for one in (
        chance,
        norm,
        same_words,
        gradient_dot,
        gradient_cosine,
        tracin,
        tracin_of_runs,
        trak,
        trak_of_runs,
    )
}
RETRAINED = "retrained"
"""The arm that predicts a half by another model of the same half: what can be reached."""
ARMS = (*SCORES, RETRAINED)


def measure(cell: Any, seen: Attribution) -> dict[str, Any]:
    """The linear datamodelling score of one arm."""
    if cell.policy == RETRAINED:
        predicted = -seen.again
    else:
        score = SCORES[cell.policy](seen)
        predicted = np.stack([score[half].sum(0) for half in seen.halves])
    return {"lds": datamodelling(predicted, -seen.losses)}


def datamodelling(predicted: np.ndarray, found: np.ndarray) -> float:
    """The mean over columns of Spearman's correlation of two [subsets, tested]."""
    ranks = [stats.rankdata(one, axis=0) for one in (predicted, found)]
    centred = [one - one.mean(0) for one in ranks]
    lengths = [np.sqrt((one**2).sum(0)) for one in centred]
    product = (centred[0] * centred[1]).sum(0)
    return float(np.mean(product / np.maximum(lengths[0] * lengths[1], 1e-12)))
