"""What a policy may know of the training labels of one shop: held-out predictions, contributions.

Everything is computed when it is first asked for. Only `wrong` and `truth` know the truth of the
training labels; `trusted` is what access b adds.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sie_bench import faults, model
from sie_bench.model import Params, Setting
from sie_bench.shops import CLEAN, WIDTH, Lists, Shop
from sie_jax import per_example

FOLDS = 4
REFERENCE = Setting(epochs=3, decay=1.0)
"""How the models of the folds train: chosen on the development shops for their held-out loss."""
HISTORY = Setting(epochs=4, decay=0.5)
"""The run whose epochs the in-sample scores are of."""
_CHUNK = 50  # lists whose contributions are computed at a time
_WITHOUT_TRUSTED = (
    "all_labels",
    "labels",
    "wrong",
    "validation_labels",
    "folds",
    "models",
    "held_out",
)


class Contributions(NamedTuple):
    """Of each pair's exact gradient contribution to the mean loss, at parameters of one model.

    norm [Q, W]. with_list [Q, W]: ⟨c_i, the sum of its list's other contributions⟩ over the norms
    of both. list_norm [Q]. along [Q, W]: ⟨c_i, v⟩ with the gradient v of the trusted lists.
    """

    norm: np.ndarray
    with_list: np.ndarray
    list_norm: np.ndarray
    along: np.ndarray


class Trusted(NamedTuple):
    """Validation lists whose right labels are known, and their labels as given [C, W]."""

    lists: Lists
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Evidence:
    """One shop under one fault. trusted_places: of the validation lists that access b knows."""

    shop: Shop
    fault: str
    trusted_places: Sequence[int] = range(CLEAN)

    @functools.cached_property
    def all_labels(self) -> np.ndarray:
        return faults.labels(self.shop, self.fault)

    @property
    def lists(self) -> Lists:
        return self.shop.train

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """The given labels [Q, W]."""
        return faults.of(self.lists, self.all_labels)

    @property
    def truth(self) -> np.ndarray:
        return self.lists.truth

    @functools.cached_property
    def wrong(self) -> np.ndarray:
        """Which labels [Q, W] are wrong."""
        return self.lists.mask & (self.labels != self.truth)

    @functools.cached_property
    def validation_labels(self) -> np.ndarray:
        return faults.of(self.shop.validation, self.all_labels)

    @functools.cached_property
    def trusted(self) -> Trusted:
        places = np.array(self.trusted_places)
        return Trusted(self.shop.validation.take(places), self.validation_labels[places])

    @functools.cached_property
    def halves(self) -> "tuple[Evidence, Evidence]":
        """The same with every other trusted list alone, and with the rest of them."""
        found = tuple(replace(self, trusted_places=self.trusted_places[at::2]) for at in (0, 1))
        for half in found:  # what knows no trusted list is computed once
            vars(half).update({name: getattr(self, name) for name in _WITHOUT_TRUSTED})
        first, second = found
        return first, second

    @functools.cached_property
    def propensity(self) -> np.ndarray:
        """The chance [Q, W] that a customer looked at each pair, were the fault `position`."""
        rate = faults.RATES["position"]
        return faults.of(self.lists, faults.propensity(self.shop, rate))

    @functools.cached_property
    def folds(self) -> np.ndarray:
        """The fold [Q] of each list."""
        order = np.random.default_rng([self.shop.seed, 30]).permutation(len(self.labels))
        found = np.empty(len(order), np.int64)
        found[order] = np.arange(len(order)) % FOLDS
        return found

    @functools.cached_property
    def models(self) -> list[Params]:
        """The model of each fold, which has not seen its lists."""
        return [self._fitted(fold) for fold in range(FOLDS)]

    def _fitted(self, fold: int) -> Params:
        others = np.flatnonzero(self.folds != fold)
        lists = self.lists.take(others)
        treatment = model.plain(self.labels[others], lists.mask)
        run = model.train(lists, self.shop.idf, treatment, REFERENCE, 1000 + fold)
        return run.at(REFERENCE.epochs - 1)

    @functools.cached_property
    def held_out(self) -> np.ndarray:
        """The probabilities [Q, W, K] of models that have not seen the list."""
        found = np.empty((*self.labels.shape, model.CLASSES), np.float32)
        for fold, params in enumerate(self.models):
            inside = np.flatnonzero(self.folds == fold)
            found[inside] = model.predict(params, self.lists.take(inside))
        return found

    @functools.cached_property
    def trusted_held_out(self) -> np.ndarray:
        """The same of the trusted lists [C, W, K]: the mean of all folds' models."""
        return np.mean([model.predict(one, self.trusted.lists) for one in self.models], 0)

    @functools.cached_property
    def _history(self) -> model.Trained:
        treatment = model.plain(self.labels, self.lists.mask)
        return model.train(self.lists, self.shop.idf, treatment, HISTORY, 2000)

    @functools.cached_property
    def history(self) -> np.ndarray:
        """In-sample probabilities [E, Q, W, K] after each epoch of one plain run."""
        epochs = range(HISTORY.epochs)
        return np.stack([model.predict(self._history.at(one), self.lists) for one in epochs])

    @functools.cached_property
    def first(self) -> Contributions:
        """In sample, after one epoch."""
        return _contributions(self._history.at(0), self.lists, self.labels, self.trusted)

    @functools.cached_property
    def list_projections(self) -> np.ndarray:
        """The gradients of whole lists [Q, 256] after one epoch, in sample, projected."""
        params, parts = self._history.at(0), []
        for start in range(0, len(self.labels), _CHUNK):
            some = self.lists.take(np.arange(start, min(start + _CHUNK, len(self.labels))))
            data = some.words, some.item_words, some.features
            labels = self.labels[start : start + _CHUNK]
            parts.append(np.asarray(_projected(params, data, labels, some.mask)))
        return np.concatenate(parts)

    @functools.cached_property
    def left_out(self) -> Contributions:
        """By models that have not seen the list."""
        parts, places = [], []
        for fold, params in enumerate(self.models):
            inside = np.flatnonzero(self.folds == fold)
            lists = self.lists.take(inside)
            parts.append(_contributions(params, lists, self.labels[inside], self.trusted))
            places.append(inside)
        back = np.argsort(np.concatenate(places))
        return Contributions(*(np.concatenate(each)[back] for each in zip(*parts, strict=True)))


def _contributions(
    params: Params, lists: Lists, labels: np.ndarray, trusted: Trusted
) -> Contributions:
    direction = _direction(params, trusted.lists)
    parts = []
    for start in range(0, len(labels), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(labels)))
        some = lists.take(rows)
        data = some.words, some.item_words, some.features
        found = _of_chunk(params, data, labels[rows], some.mask, direction)
        parts.append([np.asarray(each) for each in found])
    return Contributions(*(np.concatenate(each) for each in zip(*parts, strict=True)))


@jax.jit
def _direction(params: Params, trusted: Lists) -> Params:
    """The gradient of the mean loss over trusted lists with their right labels."""

    data = [jnp.asarray(one) for one in (trusted.words, trusted.item_words, trusted.features)]

    def loss(params: Params):
        outputs = model.logits(params, *data)
        target = jax.nn.one_hot(trusted.truth, model.CLASSES)
        each = model.losses(outputs, target, jnp.eye(model.CLASSES))
        return (each * trusted.mask).sum() / trusted.mask.sum()

    return jax.grad(loss)(params)


def _found(params: Params, data, labels, mask) -> per_example.Contributions:
    """The contributions of the pairs of some lists to the sum of their losses."""
    words, item_words, features = data
    words = jnp.repeat(words, WIDTH, axis=0)
    units = (words, *(each.reshape(-1, *each.shape[2:]) for each in (item_words, features)))

    def coupling(outputs, _):
        target = jax.nn.one_hot(labels.reshape(-1), model.CLASSES)
        each = model.losses(outputs, target, jnp.eye(model.CLASSES))
        return (each * mask.reshape(-1)).sum()

    return per_example.coupled_value_and_grad(model.logits_of, coupling)(params, units, ())[1]


@jax.jit
def _of_chunk(params: Params, data, labels, mask, direction):
    """The fields of Contributions, from one backward pass of `sie_jax.per_example`."""
    found, number = _found(params, data, labels, mask), len(labels)
    norm, along = found.norms(), found.dot(direction)
    list_norm = found.lists(number).norms()
    others = found.agreement(number) - norm**2
    whole = jnp.repeat(list_norm, WIDTH) ** 2
    # ‖list − c‖² = ‖list‖² − 2⟨c, list − c⟩ − ‖c‖²
    rest = jnp.sqrt(jnp.maximum(whole - 2 * others - norm**2, 1e-12))
    shape = labels.shape
    with_list = others / jnp.maximum(norm * rest, 1e-12)
    return norm.reshape(shape), with_list.reshape(shape), list_norm, along.reshape(shape)


@jax.jit
def _projected(params: Params, data, labels, mask):
    lists = _found(params, data, labels, mask).lists(len(labels))
    return lists.project(jax.random.key(0), 256)
