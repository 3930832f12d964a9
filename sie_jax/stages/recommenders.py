"""Recommenders without a network, fitted to the same events: what every run is seen against."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from sie_jax import processes
from sie_jax.data.histories.histories import TRAIN, VALIDATION, Cases, Histories, cases
from sie_jax.evaluation import retrieval
from sie_jax.evaluation.retrieval import NOTHING, Wanted
from sie_jax.files import read_json, write_json
from sie_jax.models import recommenders as models
from sie_jax.models.recommenders import KINDS, Recommender, Repeat
from sie_jax.workdir import Job, Made, stage

FOLDER, FILE = "recommenders", "recommenders.json"
METRIC, DEPTH = "ndcg@10", 10
_ROWS = 512  # users whose scores of all items are held at a time


class Fitted(NamedTuple):
    """The recommenders by name, and what each gave on the validation users for each option."""

    recommenders: dict[str, Recommender]
    validation: dict[str, dict[str, float]]


def read(made: Made[Fitted]) -> Fitted:
    """What was fitted."""
    told = read_json(made.folder / FILE)
    found = {name: models.load(made.folder / FOLDER / name) for name in told}
    return Fitted(found, told)


@stage(leaves=(FOLDER, FILE), read=read)
def recommenders(job: Job, histories: Made[Histories], *, repeats: bool, seed: int) -> None:
    """Leaves each of `models.recommenders`, with the option that is best on the validation users.

    repeats: whether items of a history may be recommended again; without it, what is bought again
    is no recommender.
    """
    own = histories.value
    matrix, asked = interactions(own), cases(own, VALIDATION)
    wanted = Wanted(asked.case, asked.item)
    told: dict[str, dict[str, float]] = {}

    def leave() -> None:
        for name, kind in KINDS.items():
            if kind is Repeat and not repeats:
                continue
            best: tuple[float, Recommender] | None = None
            told[name] = {}
            for option in getattr(kind, "options", (0.0,)):
                made: Any = kind.fit(matrix, option=option, seed=seed)
                lists = listed(made, own, asked, depth=DEPTH, repeats=repeats)
                value = retrieval.per_query(lists, wanted, depths=(DEPTH,))[METRIC].mean()
                told[name][f"{option:g}"] = float(value)
                if best is None or value > best[0]:
                    best = float(value), made
                job.say(f"{name} {option:g}: validation {METRIC} {value:.4f}")
            assert best is not None
            models.save(best[1], job.folder / FOLDER / name)
        write_json(job.folder / FILE, told)

    processes.alone(leave)


def interactions(histories: Histories) -> sparse.csr_matrix:
    """How often each user met each item in training `[U, I + 1]`, but for what was taken back."""
    taken = histories.wanted & (histories.split == TRAIN)
    shape = (len(histories.users), len(histories.items) + 1)
    places = (histories.user[taken], histories.item[taken])
    return sparse.csr_matrix((np.ones(taken.sum(), np.float32), places), shape=shape)


def listed(
    recommender: Recommender,
    histories: Histories,
    asked: Cases,
    *,
    depth: int,
    repeats: bool,
    among: np.ndarray | None = None,
) -> np.ndarray:
    """The lists `[C, depth]` of all cases, NOTHING behind the last item.

    Equal scores are ranked by chance, the same for all users: the order of items tells when each
    was first met, which may be after the split. An item that nobody met in training is ranked as
    its score says, which as a rule is the lowest. among: the items that are ranked, all where None.
    """
    depth = min(depth, len(histories.items))
    return np.concatenate(
        [
            np.empty((0, depth), np.int64),
            *_blocks(recommender, histories, asked, depth, repeats, among),
        ]
    )


def _blocks(
    recommender: Recommender,
    histories: Histories,
    asked: Cases,
    depth: int,
    repeats: bool,
    among: np.ndarray | None,
) -> Iterator[np.ndarray]:
    order = np.random.default_rng(0).permutation(len(histories.items) + 1)
    for begin in range(0, len(asked), _ROWS):
        rows = slice(begin, begin + _ROWS)
        read = [
            histories.item[start:stop]
            for start, stop in zip(asked.start[rows], asked.stop[rows], strict=True)
        ]
        users = np.where(asked.known[rows], asked.user[rows], -1)
        scores = recommender.scores(users, read).astype(np.float64)
        scores[:, 0] = -np.inf
        if among is not None:
            scores[:, ~among] = -np.inf
        if not repeats:
            for row, history in enumerate(read):
                scores[row, history] = -np.inf
        places = first(scores[:, order], depth)
        yield np.where(places == NOTHING, NOTHING, order[places])


def first(scores: np.ndarray, depth: int) -> np.ndarray:
    """The places of each row's highest scores, equal ones by place; NOTHING for −∞."""
    part = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
    edge = np.take_along_axis(scores, part, 1).min(1, keepdims=True)
    # of equal scores at the edge argpartition takes any: rank all of them
    tied = (scores >= edge).sum(1) > depth
    part[tied] = np.argsort(-scores[tied], axis=1, kind="stable")[:, :depth]
    part.sort(1)
    values = np.take_along_axis(scores, part, 1)
    order = np.argsort(-values, axis=1, kind="stable")
    places = np.take_along_axis(part, order, 1)
    return np.where(np.take_along_axis(values, order, 1) > -np.inf, places, NOTHING)


def path_of(folder: Path, name: str) -> Path:
    """Where a recommender is."""
    return folder / FOLDER / name
