"""Real pairs under planted faults: a layer over frozen vectors and features, nested by queries.

The ranker memorises and trains in a second: products and absolute differences of the checkpoint's
vectors of query and title, their first principal components, and the features of
`sie_jax.data.features`, under one hidden layer. Each query is tested once for each seed, by a model
that was trained on four fifths of the others under faulty labels, and ended at its best epoch by
the rest of the others. All arms of a fold are trained at once.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from nested_rankers import Judged

from sie_bench import policies
from sie_jax.data import folds, sentences
from sie_jax.data.sources.market import noise
from sie_jax.data.sources.market.needs import EXACT
from sie_jax.evaluation import detection
from sie_jax.importance import doubtful
from sie_jax.models import linear

FOLDS, INNER, JUDGES = 5, 4, 5
"""Folds that are tested in turn, those of held-out predictions inside, and one part in so many of
the other queries that ends every run and chooses among arms, and trains none."""
FAULTS = {"none": 0.0, "missing_positive": 0.4, "confusion": 0.2, "annotator": 0.2, "sellers": 0.2}
"""The share of the labels that each makes wrong; of missing positives the share of the best."""
ARMS = (
    "uniform",
    "keep 0.8 by chance",
    "keep 0.8 by held_out_loss",
    "keep 0.9 by held_out_loss",
    "soften 0.5",
    "soften 0.8",
    "doubtful_groups",
    "oracle_drop",
    "clean",
)
CHOSEN = ("uniform", "keep 0.8 by held_out_loss", "soften 0.5", "doubtful_groups")
"""What is chosen among where the judging lists have right labels."""
COMPONENTS, HIDDEN, BATCH, EPOCHS, EVERY = 64, 64, 256, 24, 4
RIDGES = (0.3, 0.1, 0.03, 0.01, 0.003)


class Data(NamedTuple):
    """inputs [N, D] of the model, features [N, F] of `linear`, float32. labels [N]: right ones.

    query, brand, seen [N]: numbers.
    """

    inputs: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    query: np.ndarray
    brand: np.ndarray
    seen: np.ndarray


def of_pairs(judged: Judged, encoder: sentences.SentenceEncoder) -> Data:
    """The arrays of a data set; no label has a part in the inputs."""
    pairs = judged.pairs
    left, right = (
        sentences.encode(encoder, list(texts)) for texts in (pairs.queries, pairs.titles)
    )
    beside = np.concatenate([left * right, np.abs(left - right)], 1)
    beside = beside - beside.mean(0)
    _, _, axes = np.linalg.svd(beside, full_matrices=False)
    found = beside @ axes[:COMPONENTS].T
    found = found / found.std(0)
    overlap = judged.features.names.index("overlap_title")
    return Data(
        np.concatenate([found, judged.features.values], 1).astype(np.float32),
        judged.features.values,
        judged.labels,
        judged.query,
        np.unique(np.array(pairs.attributes["brand"], str), return_inverse=True)[1],
        np.round(2 * judged.features.values[:, overlap]).astype(np.int64) + 20,
    )


def faulty(data: Data, fault: str, where: np.ndarray, seed: int) -> np.ndarray:
    """The labels [N], wrong in rows `where` as the fault says (`sie_bench.faults`)."""
    rng, truth, rate = np.random.default_rng([seed, 6]), data.labels, FAULTS[fault]
    if fault == "none":
        return truth
    if fault == "sellers":
        rank = rng.permutation(data.brand.max() + 1)[data.brand]
        false = where & (truth != EXACT)
        wrong = np.cumsum(np.bincount(rank[false], minlength=data.brand.max() + 1))
        return np.where(false & (wrong[rank] <= rate * where.sum()), EXACT, truth)
    if fault == "missing_positive":
        rate *= float((truth[where] == EXACT).mean())
    return noise.relabel(rng, noise.Judged(truth, data.query, data.seen, where), fault, rate)


def cell(judged: Judged, data: Data, fault: str, seed: int) -> dict[str, Any]:
    """nDCG@10 of every query under one fault, by arm; and what was chosen in each fold."""
    names = [*ARMS, "linear", "chosen, a", "chosen, b", "uniform, b"]
    scores = {name: np.zeros(len(data.labels)) for name in names}
    told: dict[str, list[Any]] = {"wrong": [], "auroc": [], "doubted": [], "a": [], "b": []}
    of_query = folds.assign(list(judged.pairs.query_ids), folds=FOLDS, seed=seed)
    for fold in range(FOLDS):
        where = of_query != fold
        labels = faulty(data, fault, where, 100 * seed + fold)
        others = np.unique(data.query[where])
        order = np.random.default_rng([seed, fold]).permutation(others)
        judges = where & np.isin(data.query, order[: len(order) // JUDGES])
        training = where & ~judges
        found, figures = _fold(judged, data, labels, training, judges, seed)
        for name in names:
            scores[name][~where] = found[name][~where]
        for name, value in figures.items():
            told[name].append(value)
    return {
        "ndcg@10": {
            name: [None if np.isnan(one) else one for one in judged.ndcg(values).tolist()]
            for name, values in scores.items()
        },
        **told,
    }


def _fold(
    judged: Judged,
    data: Data,
    labels: np.ndarray,
    training: np.ndarray,
    judges: np.ndarray,
    seed: int,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The scores [N] of each arm, fitted on `training` with the labels as given."""
    one_hot = np.eye(len(judged.gains), dtype=np.float32)
    held_out = _held_out(data, labels, training, seed)
    wrong = training & (labels != data.labels)
    loss = -np.log(np.maximum(held_out[np.arange(len(labels)), labels], 1e-9))
    groups = doubtful.Groups(data.query[training], sellers=data.brand[training])
    doubt = np.zeros(len(labels))
    doubt[training] = doubtful.doubtful_groups(held_out[training], labels[training], groups)
    chance = np.random.default_rng([seed, 3]).random(len(labels))

    def softened(strength: float) -> np.ndarray:
        return (1 - strength) * one_hot[labels] + strength * held_out

    treatments: dict[str, tuple[np.ndarray, np.ndarray]] = {
        "uniform": (training, one_hot[labels]),
        "keep 0.8 by chance": (policies.kept(chance, training, 0.8), one_hot[labels]),
        "keep 0.8 by held_out_loss": (policies.kept(loss, training, 0.8), one_hot[labels]),
        "keep 0.9 by held_out_loss": (policies.kept(loss, training, 0.9), one_hot[labels]),
        "soften 0.5": (training, softened(0.5)),
        "soften 0.8": (training, softened(0.8)),
        "doubtful_groups": (training * (1 - doubt), one_hot[labels]),
        "oracle_drop": (training & ~wrong, one_hot[labels]),
        "clean": (training, one_hot[data.labels]),
    }
    weights, targets = (np.stack([one[at] for one in treatments.values()]) for at in (0, 1))
    runs = train(data.inputs, weights.astype(np.float32), targets, seed) @ judged.gains
    given, right = (_judged(judged, judges, of) for of in (labels, data.labels))
    found, by_right = {}, {}
    for arm, of_epochs in zip(treatments, runs, strict=True):
        # clean labels are those of the lists that end a run too
        best = max(of_epochs, key=right if arm == "clean" else given)
        found[arm], by_right[arm] = best, max(of_epochs, key=right)
    found["linear"] = _linear(judged, data, labels, training, given)
    doubts = float(doubt[training].mean())
    of_a = "doubtful_groups" if doubts else "uniform"
    of_b = max(CHOSEN, key=lambda arm: right(by_right[arm]))
    found["chosen, a"], found["chosen, b"] = found[of_a], by_right[of_b]
    found["uniform, b"] = by_right["uniform"]
    figures = {
        "wrong": float(wrong[training].mean()),
        "auroc": detection.auroc(loss[training], wrong[training]) if wrong.any() else None,
        "doubted": doubts,
        "a": of_a,
        "b": of_b,
    }
    return found, figures


def _judged(judged: Judged, judges: np.ndarray, labels: np.ndarray) -> Any:
    """The mean nDCG@10 of the judging lists, as a function of scores [N]."""
    table = judged.table.set_column(judged.table.schema.get_field_index("label"), "label", [labels])
    by_labels = Judged(
        table, judged.scale, judged.pairs, judged.features, judged.titles, judged.query
    )
    return lambda scores: float(np.nanmean(by_labels.ndcg(scores, judges)))


def _held_out(data: Data, labels: np.ndarray, training: np.ndarray, seed: int) -> np.ndarray:
    """Probabilities [N, K] of models that did not see the query; 0 outside `training`."""
    queries = np.unique(data.query[training])
    fold_of = np.random.default_rng([seed, 4]).permutation(len(queries)) % INNER
    fold = np.full(data.query.max() + 1, -1)
    fold[queries] = fold_of
    masks = np.stack([training & (fold[data.query] != one) for one in range(INNER)])
    one_hot = np.eye(4, dtype=np.float32)[labels]
    targets = np.broadcast_to(one_hot, (INNER, *one_hot.shape))
    # the epoch of the least held-out loss, which all folds share: a model that went on is too sure
    runs = train(data.inputs, masks.astype(np.float32), targets, 1000 + seed)
    inside = np.where(training, fold[data.query], 0)
    rows = np.arange(len(labels))
    each = [runs[inside, epoch, rows] for epoch in range(runs.shape[1])]
    losses = [-np.log(np.maximum(one[rows, labels], 1e-9))[training].mean() for one in each]
    found = each[int(np.argmin(losses))]
    return np.where(training[:, None], found, 0)


def _linear(
    judged: Judged, data: Data, labels: np.ndarray, training: np.ndarray, given: Any
) -> np.ndarray:
    """The scores of the linear ranker on the same labels, its ridge chosen by the same lists."""
    gains = judged.gains[labels]
    lists = linear.Lists(data.features, gains, data.query).rows(training)
    each = [data.features @ linear.fit(lists, ridge=ridge) for ridge in RIDGES]
    return max(each, key=given)


def train(inputs: np.ndarray, weights: np.ndarray, targets: np.ndarray, seed: int) -> np.ndarray:
    """The probabilities [A, E, N, K] of runs with weights [A, N] and targets [A, N, K].

    E: after every EVERY-th of EPOCHS epochs. All runs start alike and see rows in one order.
    """
    rows = -(-len(inputs) // BATCH) * BATCH
    more = rows - len(inputs)
    padded = np.pad(inputs, ((0, more), (0, 0)))
    weights = np.pad(weights, ((0, 0), (0, more)))
    targets = np.pad(targets, ((0, 0), (0, more), (0, 0)))
    found = _train(padded, weights, targets, jax.random.key(seed))
    return np.asarray(found)[:, :, : len(inputs)]


@jax.jit
def _train(inputs: Any, weights: Any, targets: Any, key: Any) -> Any:
    count, width = inputs.shape
    classes = targets.shape[-1]
    keys = jax.random.split(key, 3)
    params = {
        "hidden": jax.random.normal(keys[0], (width, HIDDEN)) / width**0.5,
        "bias": jnp.zeros(HIDDEN),
        "out": jax.random.normal(keys[1], (HIDDEN, classes)) / HIDDEN**0.5,
        "start": jnp.zeros(classes),
    }
    steps = count // BATCH
    rate = optax.cosine_decay_schedule(3e-3, steps * EPOCHS)
    optimizer = optax.adamw(rate, weight_decay=0.1)

    def logits(params: Any, x: Any) -> Any:
        return jax.nn.relu(x @ params["hidden"] + params["bias"]) @ params["out"] + params["start"]

    def one(weights: Any, targets: Any) -> Any:
        def objective(params: Any, rows: Any) -> Any:
            each = -(targets[rows] * jax.nn.log_softmax(logits(params, inputs[rows]))).sum(-1)
            return (weights[rows] * each).sum() / jnp.maximum(weights[rows].sum(), 1e-6)

        def step(carry: Any, rows: Any) -> Any:
            params, state = carry
            updates, state = optimizer.update(jax.grad(objective)(params, rows), state, params)
            return (optax.apply_updates(params, updates), state), None

        def epochs(carry: Any, key: Any) -> Any:
            for one in jax.random.split(key, EVERY):
                order = jax.random.permutation(one, count).reshape(steps, BATCH)
                carry, _ = jax.lax.scan(step, carry, order)
            return carry, jax.nn.softmax(logits(carry[0], inputs))

        keys_of = jax.random.split(keys[2], EPOCHS // EVERY)
        return jax.lax.scan(epochs, (params, optimizer.init(params)), keys_of)[1]

    return jax.vmap(one)(weights, targets)
