"""What a cell of each track measures, given what is known of its shop and fault."""

import dataclasses
from typing import Any

import numpy as np

from sie_bench import model, policies, scores
from sie_bench.evidence import Evidence
from sie_bench.model import Setting, Treatment
from sie_bench.shops import CLEAN, GAINS, Lists
from sie_jax.data import features, translation
from sie_jax.evaluation import detection
from sie_jax.models import linear

RIDGES = (0.3, 0.1, 0.03, 0.01)
_DIFFERENT = 400  # lists of which the redundant shop's lists are made
_DROPPED = 0.1  # share of a repeated list's pairs that are missing
_DIGITS = 4
_SETTING = (4, 1.0)


def measure(cell: Any, seen: Evidence) -> dict[str, Any]:
    """The values of a cell: plain numbers."""
    return {"weight": weight, "find": find, "relabel": relabel, "prune": prune}[cell.track](
        cell, seen
    )


# Weight


def weight(cell: Any, seen: Evidence) -> dict[str, Any]:
    """A policy's run, or a rival's."""
    if cell.policy in RIVALS:
        return RIVALS[cell.policy](seen)
    if cell.taught:
        return taught(cell, seen)
    treatment = getattr(policies, cell.policy)(seen, cell.score, cell.strength)
    return trained(cell, seen, seen.lists, treatment) | _departure(treatment, seen)


def _departure(treatment: Treatment, seen: Evidence) -> dict[str, Any]:
    """Whether a treatment of the training labels is not `plain`."""
    plain = model.plain(seen.labels, seen.lists.mask)
    same = (
        np.array_equal(getattr(treatment, one), getattr(plain, one)) for one in Treatment._fields
    )
    return {"departs": not all(same)}


def taught(cell: Any, seen: Evidence) -> dict[str, Any]:
    """A policy's run that learns from the trusted lists too, with their right labels: access b.

    No list is left to stop it, so that the last epoch counts. Its validation nDCG@10 is by halves:
    policy and run know every other trusted list alone, and are asked the rest, and the other way
    round.
    """
    setting = Setting(*cell.setting)

    def run(known: Evidence) -> tuple[model.Params, Treatment]:
        treatment = getattr(policies, cell.policy)(known, cell.score, cell.strength)
        lists, given = with_trusted(known, treatment)
        run = model.train(lists, seen.shop.idf, given, setting, cell.seed)
        return run.at(setting.epochs - 1), treatment

    validation = np.zeros(len(seen.trusted_places))
    for at, half in enumerate(seen.halves):
        others = seen.halves[1 - at].trusted.lists
        said = model.predict(run(half)[0], others)
        validation[1 - at :: 2] = of_queries(said, others.truth, others.mask)
    last, treatment = run(seen)
    test = test_ndcg(seen, model.predict(last, seen.shop.test) @ GAINS)
    found = {"validation": np.round(validation, _DIGITS).tolist(), "test": test}
    return {"b": found} | _departure(treatment, seen)


def with_trusted(seen: Evidence, treatment: Treatment) -> tuple[Lists, Treatment]:
    """The training lists as they are treated, and behind them the trusted ones with right labels.

    ValueError where the treatment corrects predictions: those of trusted lists need none.
    """
    if not np.array_equal(treatment.transition, np.eye(model.CLASSES)):
        raise ValueError("a transition would hold for the trusted lists too")
    further = model.plain(seen.trusted.lists.truth, seen.trusted.lists.mask)
    weights, targets = (
        np.concatenate([getattr(one, name) for one in (treatment, further)])
        for name in ("weights", "targets")
    )
    lists = Lists(
        *(np.concatenate(both) for both in zip(seen.lists, seen.trusted.lists, strict=True))
    )
    return lists, treatment._replace(weights=weights, targets=targets)


def trained(cell: Any, seen: Evidence, lists: Lists, treatment: Treatment) -> dict[str, Any]:
    """Trains, and picks the best epoch by the validation queries of each access.

    Of each access: the epoch, nDCG@10 of each of its validation queries, and of the test queries
    (the mean). memorised: the share of wrong training labels that are predicted as given, by the
    epoch of access a.
    """
    run = model.train(lists, seen.shop.idf, treatment, Setting(*cell.setting), cell.seed)
    epochs = range(cell.setting[0])
    predictions = [model.predict(run.at(one), seen.shop.validation) for one in epochs]
    result: dict[str, Any] = {}
    tested: dict[int, float] = {}
    for access, (labels, some) in accesses(seen).items():
        each = [of_queries(one, labels, seen.shop.validation.mask)[some] for one in predictions]
        epoch = int(np.argmax([np.nanmean(one) for one in each]))
        if epoch not in tested:
            tested[epoch] = test_ndcg(seen, model.predict(run.at(epoch), seen.shop.test) @ GAINS)
        result[access] = {
            "epoch": epoch,
            "validation": np.round(each[epoch], _DIGITS).tolist(),
            "test": tested[epoch],
        }
    if seen.wrong.any() and lists is seen.lists:
        said = model.predict(run.at(result["a"]["epoch"]), lists).argmax(-1)
        result["memorised"] = float((said == seen.labels)[seen.wrong].mean())
    return result


def accesses(seen: Evidence) -> dict[str, tuple[np.ndarray, slice]]:
    """The validation labels of each access, and which of the queries it has."""
    every, some = slice(None), slice(CLEAN)
    return {"a": (seen.validation_labels, every), "b": (seen.shop.validation.truth, some)}


def of_queries(probabilities: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """nDCG@10 [Q] of ranking by the expected gain."""
    return model.ndcg(probabilities @ GAINS, labels, mask)


def test_ndcg(seen: Evidence, ranked: np.ndarray) -> float:
    """The mean nDCG@10 of scores [Q, W] on the test queries."""
    each = model.ndcg(ranked, seen.shop.test.truth, seen.shop.test.mask)
    return float(np.nanmean(each))


# Find


def find(cell: Any, seen: Evidence) -> dict[str, Any]:
    """How well a score finds the wrong labels of the training pairs.

    precision: among as many as are wrong. read: the share of labels that are read, from the most
    suspected on, until 80 % of the wrong ones are found.
    """
    mask = seen.lists.mask
    score, wrong = scores.SCORES[cell.score](seen)[mask].astype(np.float64), seen.wrong[mask]
    hits = np.cumsum(wrong[np.argsort(-score, kind="stable")])
    return {
        "auroc": detection.auroc(score, wrong),
        "average_precision": detection.average_precision(score, wrong),
        "precision": detection.precision_at(score, wrong, int(wrong.sum())),
        "read": float((np.searchsorted(hits, 0.8 * hits[-1]) + 1) / len(hits)),
        "rate": float(wrong.mean()),
    }


# Relabel


def relabel(cell: Any, seen: Evidence) -> dict[str, Any]:
    """The share `budget` with the highest scores is read and put right; uniform trains on that."""
    mask = seen.lists.mask
    read = policies.kept(-scores.SCORES[cell.score](seen), mask, cell.budget)
    labels = np.where(read, seen.truth, seen.labels)
    result = trained(cell, seen, seen.lists, model.plain(labels, mask))
    return result | {"read": int(read.sum()), "mended": int((read & seen.wrong).sum())}


# Prune


def redundant(seen: Evidence) -> Evidence:
    """The shop with near-duplicates and a heavy head.

    As many training lists as before, drawn from 400 of them with chances 1/rank; each keeps nine
    tenths of its pairs.
    """
    rng = np.random.default_rng([seen.shop.seed, 50])
    count = len(seen.lists.mask)
    chances = 1 / np.arange(1, _DIFFERENT + 1)
    drawn = rng.choice(_DIFFERENT, size=count, p=chances / chances.sum())
    lists = seen.lists.take(drawn)
    lists = lists._replace(mask=lists.mask & (rng.random(lists.mask.shape) >= _DROPPED))
    return Evidence(dataclasses.replace(seen.shop, train=lists), seen.fault)


def prune(cell: Any, seen: Evidence) -> dict[str, Any]:
    """Keeps the share `budget` of the lists, those with the highest values of their score.

    compute "equal": the kept lists are repeated, so that there are as many steps as without
    pruning. "proportional": as many epochs, and so fewer steps. "rescaled": so too, at the
    learning rate of the cell's setting.
    """
    count = len(seen.lists.mask)
    chosen = PRUNINGS[cell.policy](seen, round(cell.budget * count))
    if cell.compute == "equal":
        chosen = np.resize(chosen, count)
    lists = seen.lists.take(chosen)
    treatment = model.plain(seen.labels[chosen], lists.mask)
    return trained(cell, seen, lists, treatment)


def random_lists(seen: Evidence, count: int) -> np.ndarray:
    """A random subset: the control."""
    order = np.random.default_rng([seen.shop.seed, 51]).permutation(len(seen.labels))
    return order[:count]


def _mean_of_lists(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return (values * mask).sum(1) / np.maximum(mask.sum(1), 1)


def hardest_el2n(seen: Evidence, count: int) -> np.ndarray:
    """The lists with the highest mean EL2N after one epoch (Paul et al. 2021)."""
    return np.argsort(-_mean_of_lists(scores.first_el2n(seen), seen.lists.mask))[:count]


def easiest_el2n(seen: Evidence, count: int) -> np.ndarray:
    """Those with the lowest."""
    return np.argsort(_mean_of_lists(scores.first_el2n(seen), seen.lists.mask))[:count]


def largest_norm(seen: Evidence, count: int) -> np.ndarray:
    """The lists with the largest exact gradient after one epoch (GraNd by lists)."""
    return np.argsort(-seen.first.list_norm)[:count]


def new_gradients(seen: Evidence, count: int) -> np.ndarray:
    """One list after the other, whose exact gradient is farthest from all that were taken.

    Farthest-point selection (Gonzalez 1985) on the projected gradients of lists after one epoch,
    each scaled to length 1; a list like one that was taken comes last.
    """
    rows = seen.list_projections
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    nearest = np.full(len(rows), np.inf)
    taken = [0]
    for _ in range(count - 1):
        nearest = np.minimum(nearest, ((rows - rows[taken[-1]]) ** 2).sum(1))
        nearest[taken[-1]] = -1
        taken.append(int(nearest.argmax()))
    return np.array(taken)


def different_queries(seen: Evidence, count: int) -> np.ndarray:
    """Each query once, then each a second time, and so on: what no model is needed for."""
    _, of = np.unique(seen.lists.row[:, 0], return_inverse=True)
    order = np.random.default_rng([seen.shop.seed, 52]).permutation(len(of))
    times = np.zeros(len(of), np.int64)
    count_of = np.zeros(of.max() + 1, np.int64)
    for place in order:
        times[place] = count_of[of[place]]
        count_of[of[place]] += 1
    return order[np.argsort(times[order], kind="stable")][:count]


def every_list(seen: Evidence, count: int) -> np.ndarray:
    """All lists, whatever the share: what its learning rate does to a run that is not pruned."""
    return np.arange(len(seen.labels))


PRUNINGS = {
    one.__name__: one
    for one in (
        random_lists,
        different_queries,
        hardest_el2n,
        easiest_el2n,
        largest_norm,
        new_gradients,
        every_list,
    )
}
"""The ways to prune. `random_lists` and `different_queries` need no scores; `every_list` is all."""


# Rivals


def linear_features(seen: Evidence) -> dict[str, Any]:
    """The linear ranker on the same labels; its ridge is chosen by each access."""
    return _fitted(seen, [lists.features for lists in _splits(seen)])


def linear_translation(seen: Evidence) -> dict[str, Any]:
    """With the score of a word translation that is learnt from the same labels, out of fold."""
    return _fitted(seen, _with(seen, _translated(seen)))


def stack(seen: Evidence) -> dict[str, Any]:
    """With the model's expected gain, out of fold on training lists, the folds' mean elsewhere."""
    others = _splits(seen)[1:]
    ranked = [seen.held_out @ GAINS]
    ranked += [np.mean([model.predict(one, of) for one in seen.models], 0) @ GAINS for of in others]
    return _fitted(seen, _with(seen, ranked))


def with_validation(seen: Evidence) -> dict[str, Any]:
    """Uniform that learns from validation lists too, with the labels that each access gives them.

    They are the first CLEAN. They cannot stop what learned from them, so that the last epoch
    counts. The validation nDCG@10 is of lists that it has seen. Learning from each of them three or
    ten times was worse on shops 0 and 1, except under sellers.
    """
    first = np.arange(CLEAN)
    further = seen.shop.validation.take(first)
    lists = Lists(*(np.concatenate(both) for both in zip(seen.lists, further, strict=True)))
    setting = Setting(*_SETTING)
    result: dict[str, Any] = {}
    for access, (labels, some) in accesses(seen).items():
        given = np.concatenate([seen.labels, labels[first]])
        run = model.train(lists, seen.shop.idf, model.plain(given, lists.mask), setting, seed=0)
        last = run.at(setting.epochs - 1)
        mask = seen.shop.validation.mask
        validation = of_queries(model.predict(last, seen.shop.validation), labels, mask)[some]
        result[access] = {
            "validation": np.round(validation, _DIGITS).tolist(),
            "test": test_ndcg(seen, model.predict(last, seen.shop.test) @ GAINS),
        }
    return result


RIVALS = {
    one.__name__: one for one in (linear_features, linear_translation, stack, with_validation)
}


def _splits(seen: Evidence) -> list[Lists]:
    return [seen.shop.train, seen.shop.validation, seen.shop.test]


def _with(seen: Evidence, ranked: list[np.ndarray]) -> list[np.ndarray]:
    """The features of each split, and one more, standardised within the query."""
    result = []
    for lists, score in zip(_splits(seen), ranked, strict=True):
        query = np.broadcast_to(np.arange(len(score))[:, None], score.shape)[lists.mask]
        column = np.zeros(score.shape, np.float32)
        column[lists.mask] = features.standardise(score[lists.mask][:, None], query)[:, 0]
        result.append(np.concatenate([lists.features, column[..., None]], -1))
    return result


def _translated(seen: Evidence) -> list[np.ndarray]:
    gains = GAINS[seen.labels]

    def texts(lists: Lists, some: np.ndarray) -> tuple[list[str], list[str]]:
        rows = lists.row[some][lists.mask[some]]
        items = lists.item[some][lists.mask[some]]
        query = seen.shop.judged.query[rows]
        return [seen.shop.queries[one] for one in query], [seen.shop.items[one] for one in items]

    def learnt(some: np.ndarray) -> translation.Translation:
        return translation.learn(*texts(seen.lists, some), gains[some][seen.lists.mask[some]])

    result = [np.zeros(lists.mask.shape) for lists in _splits(seen)]
    for fold in np.unique(seen.folds):
        inside = np.flatnonzero(seen.folds == fold)
        words = learnt(np.flatnonzero(seen.folds != fold))
        scored = np.zeros(seen.lists.mask[inside].shape)
        scored[seen.lists.mask[inside]] = words.scores(*texts(seen.lists, inside))
        result[0][inside] = scored
    words = learnt(np.arange(len(seen.labels)))
    for lists, score in zip(_splits(seen)[1:], result[1:], strict=True):
        score[lists.mask] = words.scores(*texts(lists, np.arange(len(score))))
    return result


def _fitted(seen: Evidence, columns: list[np.ndarray]) -> dict[str, Any]:
    """The linear ranker of some columns, with the best ridge by each access."""
    mask = seen.lists.mask
    query = np.broadcast_to(np.arange(len(mask))[:, None], mask.shape)[mask]
    data = linear.Lists(columns[0][mask], GAINS[seen.labels[mask]], query)
    weights = [linear.fit(data, ridge=ridge) for ridge in RIDGES]
    result: dict[str, Any] = {}
    for access, (labels, some) in accesses(seen).items():
        each = [
            model.ndcg(columns[1] @ one, labels, seen.shop.validation.mask)[some] for one in weights
        ]
        best = int(np.argmax([np.nanmean(one) for one in each]))
        result[access] = {
            "validation": np.round(each[best], _DIGITS).tolist(),
            "test": test_ndcg(seen, columns[2] @ weights[best]),
        }
    return result
