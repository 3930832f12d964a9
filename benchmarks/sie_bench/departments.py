"""A shop whose training lists are of other departments than its customers: shift, and a long tail.

Shift: one department is new. Its test queries count, and some twenty-five judged lists of it are
given. Tail: the department of rank r has r^-STEEPNESS times the lists of the largest one; the four
smallest are the tail. All labels are right.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from sie_bench import attribute, model, shops
from sie_bench.model import Setting
from sie_bench.shops import GAINS, Lists, Shop
from sie_bench.worlds import World
from sie_jax.importance import policies as library

SETTING = Setting(4, 1.0)
SEEDS = (0, 1, 2)
LISTS = {"shift": 1000, "tail": 500}
"""Lists of an epoch: what a track trains on is repeated up to so many, whatever is left out."""
STEEPNESS = 1.5
TAIL, HEAD = 4, 2
"""Departments of each."""


class Training(NamedTuple):
    """Lists to learn from, and the weight `[Q, W]` of each pair; 0 where there is none."""

    lists: Lists
    weights: np.ndarray


@dataclass(frozen=True, eq=False)
class Departments:
    """A shop with the departments of its queries, as both tracks divide it."""

    shop: Shop
    world: World

    def of(self, lists: Lists) -> np.ndarray:
        """The department [Q] of each list."""
        found: np.ndarray = self.world.department[self.shop.judged.query[lists.row[:, 0]]]
        return found

    @property
    def new(self) -> int:
        """The department that is shifted to."""
        return self.shop.seed % self.number

    @property
    def number(self) -> int:
        return int(self.world.department.max()) + 1

    @functools.cached_property
    def source(self) -> Lists:
        """The training lists of all other departments."""
        return _where(self.shop.train, self.of(self.shop.train) != self.new)

    @functools.cached_property
    def sample(self) -> Lists:
        """The judged lists of the new one: those among the validation lists."""
        return _where(self.shop.validation, self.of(self.shop.validation) == self.new)

    @functools.cached_property
    def target(self) -> Lists:
        """The test lists of the new one."""
        return _where(self.shop.test, self.of(self.shop.test) == self.new)

    @functools.cached_property
    def gradients(self) -> tuple[np.ndarray, np.ndarray]:
        """Those of the source lists [Q, D] and of the sample [C, D], by a model of the source."""
        params = _trained(_plain(self.source), self.shop.idf, "shift", SEEDS[0])
        ours, theirs = (attribute.list_gradients(params, one) for one in (self.source, self.sample))
        return ours, theirs

    @functools.cached_property
    def ranks(self) -> np.ndarray:
        """The rank [departments] of each department's size in the tail track, from 0."""
        return np.random.default_rng([self.shop.seed, 70]).permutation(self.number)

    @functools.cached_property
    def skewed(self) -> Lists:
        """The training lists of the tail track."""
        department = self.of(self.shop.train)
        largest = np.bincount(department).min()
        keep = np.zeros(len(department), bool)
        for one in range(self.number):
            places = np.flatnonzero(department == one)
            keep[places[: round(largest / (1 + self.ranks[one]) ** STEEPNESS)]] = True
        return _where(self.shop.train, keep)

    @functools.cached_property
    def norms(self) -> np.ndarray:
        """The norm [Q] of the gradient of each skewed list after one epoch."""
        params = _run(_plain(self.skewed), self.shop.idf, "tail", SEEDS[0]).at(0)
        return np.linalg.norm(attribute.list_gradients(params, self.skewed), axis=1)

    def in_tail(self, lists: Lists) -> np.ndarray:
        """Which lists [Q] are of the tail."""
        found: np.ndarray = self.ranks[self.of(lists)] >= self.number - TAIL
        return found


def measure(cell: Any, seen: Departments) -> dict[str, Any]:
    """nDCG@10 of what is tested, the mean over SEEDS; of the tail track more of it."""
    training = ARMS[cell.track][cell.policy](seen, cell.strength)
    params = [_trained(training, seen.shop.idf, cell.track, seed) for seed in SEEDS]
    if cell.track == "shift":
        return {"ndcg@10": float(np.mean([_ndcg(one, seen.target).mean() for one in params]))}
    return _means([_of_tail(one, seen) for one in params])


def _of_tail(params: model.Params, seen: Departments) -> dict[str, float]:
    test = seen.shop.test
    said = model.predict(params, test)
    each = model.ndcg(said @ GAINS, test.truth, test.mask)
    tail, ranks = seen.in_tail(test), seen.ranks[seen.of(test)]
    of_tail = test.mask & tail[:, None]
    f1 = f1_score(test.truth[of_tail], said.argmax(-1)[of_tail], average="macro")
    return {
        "tail": float(np.nanmean(each[tail])),
        "head": float(np.nanmean(each[ranks < HEAD])),
        "all": float(np.nanmean(each)),
        "macro_f1": float(f1),
    }


def _means(values: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in values])) for name in values[0]}


def _ndcg(params: model.Params, lists: Lists) -> np.ndarray:
    found = model.ndcg(model.predict(params, lists) @ GAINS, lists.truth, lists.mask)
    return found[~np.isnan(found)]


def _where(lists: Lists, some: np.ndarray) -> Lists:
    return lists.take(np.flatnonzero(some))


def _joined(*parts: Lists) -> Lists:
    return Lists(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _plain(lists: Lists) -> Training:
    return Training(lists, lists.mask.astype(np.float32))


def _weighed(lists: Lists, weights: np.ndarray) -> Training:
    """Lists with a weight [Q] of each, whose mean is 1."""
    return Training(lists, (lists.mask * (weights / weights.mean())[:, None]).astype(np.float32))


def _run(training: Training, idf: np.ndarray, track: str, seed: int) -> model.Trained:
    """One run; the lists are repeated in a drawn order up to LISTS."""
    count = len(training.weights)
    order = np.resize(np.random.default_rng([seed, 71]).permutation(count), LISTS[track])
    lists = training.lists.take(order)
    treatment = model.plain(lists.truth, lists.mask)._replace(weights=training.weights[order])
    return model.train(lists, idf, treatment, SETTING, seed)


def _trained(training: Training, idf: np.ndarray, track: str, seed: int) -> model.Params:
    return _run(training, idf, track, seed).at(SETTING.epochs - 1)


# Shift: what is trained on


def source(seen: Departments, strength: float) -> Training:
    """The other departments alone."""
    return _plain(seen.source)


def with_sample(seen: Departments, strength: float) -> Training:
    """The other departments and the sample, `strength` times."""
    return _plain(_joined(seen.source, *[seen.sample] * int(strength)))


def sample(seen: Departments, strength: float) -> Training:
    """The sample alone."""
    return _plain(seen.sample)


def oracle(seen: Departments, strength: float) -> Training:
    """With all training lists of the new department: the headroom."""
    return _plain(_joined(seen.shop.train, seen.sample))


def _best(seen: Departments, values: np.ndarray, share: float) -> Training:
    """The share of the source lists with the highest values and the sample."""
    kept = np.argsort(-values, kind="stable")[: round(share * len(values))]
    return _plain(_joined(seen.source.take(kept), seen.sample))


def random_lists(seen: Departments, strength: float) -> Training:
    """A random share: a control."""
    return _best(seen, np.random.default_rng([seen.shop.seed, 72]).random(_count(seen)), strength)


def influence(seen: Departments, strength: float) -> Training:
    """By the inner product with the sample's mean gradient, by a model of the source (TracIn)."""
    ours, theirs = seen.gradients
    return _best(seen, ours @ theirs.mean(0), strength)


def cosine(seen: Departments, strength: float) -> Training:
    """By the mean cosine with the sample's gradients."""
    ours, theirs = (
        one / np.maximum(np.linalg.norm(one, axis=1, keepdims=True), 1e-12)
        for one in seen.gradients
    )
    return _best(seen, ours @ theirs.mean(0), strength)


def density_ratio(seen: Departments, strength: float) -> Training:
    """Every source list weighs p / (1 - p), to the power `strength`, p the chance of the sample.

    A logistic regression tells the two by the words of query and items (Bickel et al. 2009).
    """
    parts = seen.source, seen.sample
    rows = np.concatenate([_words(one, seen.shop.idf) for one in parts])
    which = np.repeat([0, 1], [len(one.mask) for one in parts])
    fitted = LogisticRegression(class_weight="balanced", max_iter=200).fit(rows, which)
    odds = np.exp(strength * fitted.decision_function(rows[which == 0]))
    weights = np.concatenate([odds / odds.mean(), np.ones(len(seen.sample.mask))])
    return _weighed(_joined(seen.source, seen.sample), weights)


def _words(lists: Lists, idf: np.ndarray) -> np.ndarray:
    """Each list's words of query and items [Q, WORDS], by idf, of length 1."""
    found = np.zeros((len(lists.mask), shops.WORDS), np.float32)
    np.put_along_axis(found, lists.words, 1, axis=1)
    np.put_along_axis(found, lists.item_words.reshape(len(found), -1), 1, axis=1)
    found = found * idf
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)


def _count(seen: Departments) -> int:
    return len(seen.source.mask)


# Tail: how the lists weigh


def uniform(seen: Departments, strength: float) -> Training:
    """All alike."""
    return _plain(seen.skewed)


def by_department(seen: Departments, strength: float) -> Training:
    """Each department weighs (its number of lists)^-strength: what a user knows without a model."""
    department = seen.of(seen.skewed)
    return _weighed(seen.skewed, np.bincount(department)[department] ** -strength)


def by_grade(seen: Departments, strength: float) -> Training:
    """Each pair weighs (the number of pairs of its grade)^-strength."""
    lists = seen.skewed
    weights = np.bincount(lists.truth[lists.mask])[lists.truth] ** -strength * lists.mask
    mean = weights.sum() / lists.mask.sum()
    return Training(lists, (weights / mean).astype(np.float32))


def by_norm(seen: Departments, strength: float) -> Training:
    """Each list weighs (the norm of its gradient)^strength: proportional importance where 1."""
    return _weighed(seen.skewed, seen.norms**strength)


def clipped_norm(seen: Departments, strength: float) -> Training:
    """The library's `clipped` policy of the norms."""
    weights = np.asarray(library.POLICIES["clipped"]()(jnp.asarray(seen.norms)))
    return _weighed(seen.skewed, weights)


def permuted_norm(seen: Departments, strength: float) -> Training:
    """`by_norm` of permuted norms: a control."""
    rng = np.random.default_rng([seen.shop.seed, 73])
    return _weighed(seen.skewed, rng.permutation(seen.norms) ** strength)


def more_of_the_tail(seen: Departments, strength: float) -> Training:
    """With all training lists of the tail: the headroom."""
    lists = seen.shop.train
    return _plain(_joined(seen.skewed, _where(lists, seen.in_tail(lists))))


ARMS: dict[str, dict[str, Callable[[Departments, float], Training]]] = {
    "shift": {
        one.__name__: one
        for one in (
            source,
            with_sample,
            sample,
            random_lists,
            influence,
            cosine,
            density_ratio,
            oracle,
        )
    },
    "tail": {
        one.__name__: one
        for one in (
            uniform,
            by_department,
            by_grade,
            by_norm,
            clipped_norm,
            permuted_norm,
            more_of_the_tail,
        )
    },
}
MEASURED: dict[str, tuple[tuple[str, float], ...]] = {
    "shift": (
        ("source", 0.0),
        ("sample", 0.0),
        ("with_sample", 1.0),
        ("with_sample", 2.0),
        ("random_lists", 0.8),
        ("influence", 0.9),
        ("influence", 0.8),
        ("cosine", 0.9),
        ("density_ratio", 0.3),
        ("oracle", 0.0),
    ),
    "tail": (
        ("uniform", 0.0),
        ("by_department", 0.5),
        ("by_department", 1.0),
        ("by_grade", 0.5),
        ("by_norm", 0.5),
        ("by_norm", 1.0),
        ("clipped_norm", 0.0),
        ("permuted_norm", 1.0),
        ("more_of_the_tail", 0.0),
    ),
}
"""The arms of each track with their strengths, settled on the development shops 0 to 2."""
