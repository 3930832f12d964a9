"""False negatives among the in-batch negatives of two towers: who leaves them out, and who finds.

A shop that sells the goods of two departments: of 256 random pairs every fortieth item of another
pair meets the need. The towers are bags of word vectors, one table for queries and one for items,
trained on exact pairs alone, as a click log gives them. Tested is what a retriever does: the items
of the whole catalogue by their exact inner products, against the rule that grades them.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from sie_bench import shops
from sie_bench.worlds import World
from sie_jax.data import lexical
from sie_jax.data.sources.market.needs import EXACT
from sie_jax.tasks.contrastive import negatives as known_negatives

BATCH, RATE, TEMPERATURE = 256, 0.02, 0.1
EPOCHS = (10, 20)
"""Each run ends after one of these, whichever has the higher recall on the validation queries."""
SEEDS = (0, 1)
DEPARTMENTS = (0, 1)
SHARES = (12, 2, 6)
"""Of 20 queries so many are to train, for validation and to test; some seven hundred are to train
with: those of the shop's own test split too, whose labels are right."""
DEPTHS = (10, 100)
_VECTOR = 64
_FOUND = 500  # queries that search the catalogue at a time
Params = dict[str, Array]


class Pairs(NamedTuple):
    """Exact pairs `[N]`: the numbers of query and item."""

    query: np.ndarray
    item: np.ndarray


class Batch(NamedTuple):
    """What a guard may look at; `[b, b]` is row i's query and row k's item.

    cosines [b, b]. queries [b, H]: the vectors of the queries. known [b, b]: the negatives that the
    batch's own pairs do not contradict (`sie_jax.tasks.contrastive.negatives`). false [b, b]: which
    items meet row i's need, which only the oracle asks for. teacher [b, b]: cosines by towers that
    were trained before.
    """

    cosines: Array
    queries: Array
    known: Array
    false: Array
    teacher: Array
    key: Array


def everything(batch: Batch, strength: float) -> Array:
    """All other rows' items, as in plain in-batch negatives."""
    return 1.0 - jnp.eye(len(batch.known))


def known(batch: Batch, strength: float) -> Array:
    """The library's guard: no item that the batch says the query wants."""
    return batch.known


def below(batch: Batch, strength: float) -> Array:
    """Of those the items whose cosine is below `strength` times the pair's own.

    Source: positive-aware mining, Moreira et al. 2024 (NV-Retriever), by the towers in training.
    """
    return batch.known * (batch.cosines < strength * jnp.diagonal(batch.cosines)[:, None])


def below_taught(batch: Batch, strength: float) -> Array:
    """The same by towers trained before (denoising by a teacher: Qu et al. 2021, RocketQA)."""
    return batch.known * (batch.teacher < strength * jnp.diagonal(batch.teacher)[:, None])


def clipped(batch: Batch, strength: float) -> Array:
    """A negative's share of the gradient is at most `strength` times the row's mean share.

    The contribution of negative k to row i is p_ik (v_k - v_i) / τ, p the softmax over the row.
    """
    share = batch.known * jnp.exp((batch.cosines - 1) / TEMPERATURE)
    mean = share.sum(1, keepdims=True) / jnp.maximum(batch.known.sum(1, keepdims=True), 1)
    return batch.known * jnp.minimum(1, strength * mean / jnp.maximum(share, 1e-30))


def agreement(batch: Batch, strength: float) -> Array:
    """Less weight for what row k's own contribution undoes: exp(-strength max(0, ⟨q_i, q_k⟩)).

    Row i pushes v_k along -p_ik q_i, and row k pulls it along (1 - p_kk) q_k. The inner product of
    the two contributions is negative where the queries are alike, and then k is likely to be wanted
    by i too.
    """
    alike = jnp.maximum(batch.queries @ batch.queries.T, 0)
    return batch.known * jnp.exp(-strength * alike)


def dropped(batch: Batch, strength: float) -> Array:
    """A random share `strength` left out: a control."""
    return batch.known * jax.random.bernoulli(batch.key, 1 - strength, batch.known.shape)


def oracle(batch: Batch, strength: float) -> Array:
    """None that meets the need."""
    return batch.known * ~batch.false


GUARDS: dict[str, Callable[[Batch, float], Array]] = {
    one.__name__: one
    for one in (everything, known, below, below_taught, clipped, agreement, dropped, oracle)
}
TEACHERS = {
    "below_taught": ("known", 0.0),
    "softened": ("agreement", 3.0),
    "distilled": ("everything", 0.0),
}
"""What needs towers that were trained before, and the guard and strength of those.

`softened` and `distilled` leave out no negative but `known`, and train towards

    (1 - strength) [k = i] + strength softmax_k(teacher's cosine / temperature)

so that an item that the teacher finds wanted is no negative by so much (soft labels: Hinton et al.
2015). `distilled` is the control: its teacher treats all other rows' items alike.
"""
SOFT = ("softened", "distilled")
ARMS = (
    ("bm25", 0.0),
    ("everything", 0.0),
    ("known", 0.0),
    ("dropped", 0.1),
    ("below", 0.9),
    ("below_taught", 0.9),
    ("clipped", 10.0),
    ("agreement", 3.0),
    ("softened", 0.6),
    ("distilled", 0.6),
    ("oracle", 0.0),
)
"""Guards with their strengths, settled on the development shops."""


class Split(NamedTuple):
    """The exact pairs to train on, and the numbers of the queries for validation and to test."""

    pairs: Pairs
    validation: np.ndarray
    test: np.ndarray


def measure(cell: Any, shop: shops.Shop, world: World) -> dict[str, Any]:
    """Recall at DEPTHS on the test queries, the mean over SEEDS; of bm25 there is one."""
    data = split(shop, world)
    if cell.policy == "bm25":
        found = [_lexical(shop, data.test)]
    else:
        found = [_best(world, data, cell.policy, cell.strength, seed) for seed in SEEDS]
    wanted = world.exact[data.test]
    return {
        f"recall@{depth}": float(np.mean([recall(top, wanted, depth) for top in found]))
        for depth in DEPTHS
    }


def _best(world: World, data: Split, guard: str, strength: float, seed: int) -> np.ndarray:
    """What the towers of the better number of epochs retrieve for the test queries."""
    runs = []
    for epochs in EPOCHS:
        teacher = None
        if guard in TEACHERS:
            theirs, strong = TEACHERS[guard]
            teacher = train(world, data.pairs, theirs, strong, None, 100 + seed, epochs=epochs)
        run = train(world, data.pairs, guard, strength, teacher, seed, epochs=epochs)
        top = retrieved(run, world, data.validation)
        runs.append((recall(top, world.exact[data.validation], DEPTHS[0]), run))
    best = max(runs, key=lambda one: one[0])[1]
    return retrieved(best, world, data.test)


def split(shop: shops.Shop, world: World) -> Split:
    """The exact pairs and queries of DEPARTMENTS, dealt by the queries' numbers."""
    queries = np.flatnonzero(np.isin(world.department, DEPARTMENTS))
    training, validation, _ = SHARES
    place = np.arange(len(queries)) % sum(SHARES)
    own = queries[place < training]
    parts = []
    for lists in (shop.train, shop.validation, shop.test):
        query = shop.judged.query[lists.row]
        chosen = lists.mask & (lists.truth == EXACT) & np.isin(query, own)
        parts.append((query[chosen], lists.item[chosen]))
    pairs = Pairs(*(np.concatenate(each) for each in zip(*parts, strict=True)))
    later = place >= training + validation
    return Split(pairs, queries[(place >= training) & ~later], queries[later])


def recall(top: np.ndarray, wanted: np.ndarray, depth: int) -> float:
    """The mean over queries of |top k ∩ wanted| / min(k, |wanted|); every query wants an item."""
    hits = np.take_along_axis(wanted, top[:, :depth], 1).sum(1)
    return float((hits / np.minimum(depth, wanted.sum(1))).mean())


def vectors(table: Array, weight: Array, words: Any) -> Array:
    """Unit vectors [N, H]: the weighted sums of the words' vectors."""
    of = jnp.where(words > 0, weight[words], 0)
    total = (of[..., None] * table[words]).sum(-2)
    return total / jnp.sqrt(jnp.maximum((total**2).sum(-1, keepdims=True), 1e-12))


def train(
    world: World,
    pairs: Pairs,
    guard: str,
    strength: float,
    teacher: Params | None,
    seed: int,
    *,
    epochs: int,
) -> Params:
    """Towers after so many epochs; a guard weighs the negatives in the softmax's denominator."""
    wanted = world.exact[pairs.query]
    arrays = world.words, world.item_words, world.idf, pairs.query, pairs.item, wanted
    plain = initial(world.idf, seed) if teacher is None else teacher
    return _train(arrays, plain, strength, seed, guard, epochs)


def initial(idf: Any, seed: Any) -> Params:
    """Both tables alike, so that equal words meet at first."""
    table = jax.random.normal(jax.random.key(seed), (shops.WORDS, _VECTOR)) / _VECTOR**0.5
    return {"query": table, "item": table, "asked": jnp.asarray(idf), "given": jnp.asarray(idf)}


@functools.partial(jax.jit, static_argnames=("guard", "epochs"))
def _train(
    arrays: Any, teacher: Params, strength: Any, seed: Any, guard: str, epochs: int
) -> Params:
    words, item_words, idf, query, item, wanted = arrays
    steps = len(query) // BATCH
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, steps * epochs))
    params = initial(idf, seed)

    def cosines(params: Params, rows: Array) -> tuple[Array, Array]:
        asked = vectors(params["query"], params["asked"], words[query[rows]])
        given = vectors(params["item"], params["given"], item_words[item[rows]])
        return asked @ given.T, asked

    def objective(params: Params, rows: Array, key: Array) -> Array:
        found, asked = cosines(params, rows)
        ours, theirs = query[rows], item[rows]
        seen = Batch(
            jax.lax.stop_gradient(found),
            jax.lax.stop_gradient(asked),
            known_negatives(jnp.ones(len(rows)), ours, theirs).astype(jnp.float32),
            wanted[rows][:, theirs],
            cosines(teacher, rows)[0],
            key,
        )
        weights = GUARDS["known" if guard in SOFT else guard](seen, strength)
        own = jnp.eye(len(rows), dtype=bool)
        logits = found / TEMPERATURE + jnp.where(own, 0, jnp.log(jnp.maximum(weights, 1e-9)))
        if guard in SOFT:
            among = jnp.where(own | (weights > 0), seen.teacher / TEMPERATURE, -jnp.inf)
            target = (1 - strength) * own + strength * jax.nn.softmax(among)
            return -jnp.where(target > 0, target * jax.nn.log_softmax(logits), 0).sum(1).mean()
        return -jnp.diagonal(jax.nn.log_softmax(logits)).mean()

    def step(carry: Any, xs: Any) -> Any:
        params, state = carry
        updates, state = optimizer.update(jax.grad(objective)(params, *xs), state, params)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1), epochs)
    order = jax.vmap(lambda key: jax.random.permutation(key, len(query)))(keys)
    order = order[:, : steps * BATCH].reshape(-1, BATCH)
    state = optimizer.init(params)
    drawn = jax.random.split(jax.random.fold_in(jax.random.key(seed), 2), len(order))
    return jax.lax.scan(step, (params, state), (order, drawn))[0][0]


def retrieved(params: Params, world: World, queries: np.ndarray) -> np.ndarray:
    """The first max(DEPTHS) items [Q, k] of each query, by the inner products with all items."""
    items = np.asarray(vectors(params["item"], params["given"], world.item_words))
    asked = np.asarray(vectors(params["query"], params["asked"], world.words[queries]))
    parts = [
        _first(asked[start : start + _FOUND] @ items.T) for start in range(0, len(asked), _FOUND)
    ]
    return np.concatenate(parts)


def _first(scores: np.ndarray) -> np.ndarray:
    """The places of the highest scores of each row, the highest first; ties by place."""
    return np.argsort(-scores, axis=1, kind="stable")[:, : max(DEPTHS)]


def _lexical(shop: shops.Shop, queries: np.ndarray) -> np.ndarray:
    """The same by BM25."""
    import bm25s  # tests of the rest need none

    index = bm25s.BM25(method="lucene")
    index.index([lexical.words(text) for text in shop.items], show_progress=False)
    asked = [lexical.words(shop.queries[one]) for one in queries]
    return _first(np.stack([index.get_scores(words) for words in asked]))
