"""Rankers of words for the generated market: features, a linear model, translation, embeddings."""

import itertools
import re
from collections import Counter, defaultdict
from typing import NamedTuple

import bm25s
import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize

from sie_jax.evaluation import ranking

LEXICAL = (
    "bm25_title",
    "bm25_text",
    "overlap",
    "weighted_overlap",
    "all_found",
    "bigrams_found",
    "numbers_found",
    "first_found",
    "last_found",
    "trigram_overlap",
    "brand_found",
    "title_length",
)
_FOLDS = 5
_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)
_GAINS = (0.0, 0.01, 0.1, 1.0)


class Pairs(NamedTuple):
    """The N judged pairs; rows of a query stand together.

    query, grade, item [N] int; gain [N] float; split [N]. The texts are those of the row. The
    catalogue's texts are the corpus of BM25.
    """

    query: np.ndarray
    grade: np.ndarray
    gain: np.ndarray
    split: np.ndarray
    queries: list[str]
    titles: list[str]
    texts: list[str]
    brands: list[str]
    item: np.ndarray
    catalogue_titles: list[str]
    catalogue_texts: list[str]


def words_of(text: str) -> list[str]:
    """The words of a text, as the baselines take them."""
    return re.findall(r"\w+", text.casefold())


def lexical(pairs: Pairs) -> np.ndarray:
    """The features LEXICAL [N, 12], standardised within the query."""
    titles = [words_of(title) for title in pairs.catalogue_titles]
    both = [
        words + words_of(text) for words, text in zip(titles, pairs.catalogue_texts, strict=True)
    ]
    frequency = Counter(word for title in titles for word in set(title))
    raw = np.zeros((len(pairs.query), len(LEXICAL)))
    raw[:, 0] = _bm25(pairs, titles)
    raw[:, 1] = _bm25(pairs, both)
    weight = defaultdict(lambda: np.log(1 + len(titles))) | {
        word: np.log(1 + len(titles) / count) for word, count in frequency.items()
    }
    trigrams: dict[str, set[str]] = {}
    for row, (text, title, brand) in enumerate(
        zip(pairs.queries, pairs.titles, pairs.brands, strict=True)
    ):
        query, words = words_of(text), words_of(title)
        has = set(words)
        found = [word in has for word in query]
        weights = np.array([weight.get(word, np.log(1 + len(titles))) for word in query])
        numbers = [hit for word, hit in zip(query, found, strict=True) if re.search(r"\d", word)]
        pieces = [
            trigrams.setdefault(one, {one[at : at + 3] for at in range(len(one) - 2)})
            for one in (text, title)
        ]
        bigrams = set(itertools.pairwise(words))
        raw[row, 2:] = (
            np.mean(found),
            weights @ found / weights.sum(),
            all(found),
            sum(pair in bigrams for pair in itertools.pairwise(query)),
            np.mean(numbers) if numbers else 0,
            found[0],
            found[-1],
            len(pieces[0] & pieces[1]) / max(len(pieces[0]), 1),
            brand in query,
            len(words),
        )
    return _standardised(pairs.query, raw)


def _bm25(pairs: Pairs, corpus: list[list[str]]) -> np.ndarray:
    """BM25 of each pair [N]."""
    index = bm25s.BM25()
    index.index(corpus, show_progress=False)
    scores = np.zeros(len(pairs.query))
    starts = np.flatnonzero(np.diff(pairs.query, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(scores)], strict=True):
        known = [word for word in words_of(pairs.queries[start]) if word in index.vocab_dict]
        if known:
            scores[start:end] = index.get_scores(known)[pairs.item[start:end]]
    return scores


def _standardised(query: np.ndarray, raw: np.ndarray) -> np.ndarray:
    """Each column [N, F] minus its mean within the query, by its deviation there."""
    count = np.bincount(query)[query, None]
    sums = np.zeros((query.max() + 1, raw.shape[1]))
    np.add.at(sums, query, raw)
    centred = raw - sums[query] / count
    squares = np.zeros_like(sums)
    np.add.at(squares, query, centred**2)
    return centred / np.sqrt(squares[query] / count + 1e-9)


def _ndcg(pairs: Pairs, scores: np.ndarray, split: str) -> float:
    """Mean nDCG@10 over the queries of a split."""
    rows = pairs.split == split
    query = np.unique(pairs.query[rows], return_inverse=True)[1]
    return float(
        np.nanmean(
            ranking.per_query(
                scores[rows],
                pairs.grade[rows],
                gains=_GAINS,
                query_index=query,
                num_queries=int(query.max()) + 1,
                example_ids=np.flatnonzero(rows),
            )["ndcg@10"]
        )
    )


def linear(pairs: Pairs, features: np.ndarray) -> np.ndarray:
    """Scores [N] of the linear listwise model; its ridge is chosen on the validation queries."""
    rows = pairs.split == "train"
    x, gain = features[rows], pairs.gain[rows]
    query = np.unique(pairs.query[rows], return_inverse=True)[1]
    count = query.max() + 1
    target = gain / np.bincount(query, gain)[query]

    def loss(weights: np.ndarray, ridge: float) -> tuple[float, np.ndarray]:
        score = x @ weights
        top = np.full(count, -np.inf)
        np.maximum.at(top, query, score)
        exponential = np.exp(score - top[query])
        total = np.bincount(query, exponential)
        log_probability = score - top[query] - np.log(total)[query]
        gradient = x.T @ (exponential / total[query] - target) / count + 2 * ridge * weights
        return -(target @ log_probability) / count + ridge * weights @ weights, gradient

    def fitted(ridge: float) -> np.ndarray:
        start = np.zeros(x.shape[1])
        best = scipy.optimize.minimize(loss, start, (ridge,), jac=True, method="L-BFGS-B")
        return features @ best.x

    return max((fitted(ridge) for ridge in _RIDGES), key=lambda s: _ndcg(pairs, s, "validation"))


def translation(pairs: Pairs) -> np.ndarray:
    """Features [N, 4] of how well the title's words explain the query's, standardised.

    IBM model 1 is learnt from the exact training pairs; training rows are scored by a model that
    has not seen their query. For each query word log p(word | title), with a little of the word's
    own frequency: the mean and the least. Then the best pointwise mutual information of the word
    with a title's word: the mean and the least.
    """
    fold = np.where(pairs.split == "train", pairs.query % _FOLDS, _FOLDS)
    raw = np.zeros((len(fold), 4))
    for one in range(_FOLDS + 1):
        learnt = np.flatnonzero((pairs.split == "train") & (fold != one) & (pairs.grade == 3))
        bitext = [(words_of(pairs.queries[row]), words_of(pairs.titles[row])) for row in learnt]
        table, background, information = _model1(bitext)
        for row in np.flatnonzero(fold == one):
            title = [*set(words_of(pairs.titles[row]))]
            logs, mutual = [], []
            for word in words_of(pairs.queries[row]):
                chance = sum(table.get((word, other), 0.0) for other in title) / len(title)
                same = float(word in title) / len(title)
                logs.append(np.log(0.6 * chance + 0.3 * same + 0.1 * background.get(word, 1e-5)))
                mutual.append(
                    max(information.get((word, other), 4.0 * (word == other)) for other in title)
                )
            raw[row] = np.mean(logs), np.min(logs), np.mean(mutual), np.min(mutual)
    return _standardised(pairs.query, raw)


def _model1(
    bitext: list[tuple[list[str], list[str]]], rounds: int = 5
) -> tuple[dict[tuple[str, str], float], dict[str, float], dict[tuple[str, str], float]]:
    """p(query word | title word), the query words' frequencies, and the mutual information."""
    query_ids: dict[str, int] = {}
    title_ids: dict[str, int] = {}
    links, ends = [], []
    for at, (query, title) in enumerate(bitext):
        for word in query:
            for other in set(title):
                links.append(
                    (
                        query_ids.setdefault(word, len(query_ids)),
                        title_ids.setdefault(other, len(title_ids)),
                    )
                )
                ends.append((at << 8) + query.index(word))
    source, target = np.array(links).T
    cell, inverse = np.unique(source * len(title_ids) + target, return_inverse=True)
    position = np.unique(np.array(ends), return_inverse=True)[1]
    of_title = cell % len(title_ids)
    chance = np.ones(len(cell))
    for _ in range(rounds):
        mass = chance[inverse]
        mass = mass / np.bincount(position, mass)[position]
        expected = np.bincount(inverse, mass)
        chance = expected / np.bincount(of_title, expected)[of_title]
    query_words, title_words = list(query_ids), list(title_ids)
    together = np.bincount(inverse).astype(float)
    query_total = np.bincount(cell // len(title_ids), together)
    title_total = np.bincount(of_title, together)
    mutual = np.log(
        (together + 0.1)
        * together.sum()
        / (query_total[cell // len(title_ids)] * title_total[of_title] + 1)
    )
    names = [
        (query_words[one // len(title_ids)], title_words[one % len(title_ids)])
        for one in cell.tolist()
    ]
    background = dict(zip(query_words, (query_total / query_total.sum()).tolist(), strict=True))
    return (
        dict(zip(names, chance.tolist(), strict=True)),
        background,
        dict(zip(names, mutual.tolist(), strict=True)),
    )


def embedding(
    pairs: Pairs,
    features: np.ndarray,
    *,
    width: int = 32,
    epochs: int = 12,
    lists: int = 32,
    seed: int = 0,
) -> np.ndarray:
    """Scores [N] of a model that learns words: late interaction of word embeddings, and features.

    s = w·x + Σ_q a_q · max_t ⟨e_q, f_t⟩ + ⟨Σ_q g_q, Σ_t h_t⟩ + Σ_t b_t

    q and t run over the words and the pairs of neighbouring words of query and title; the maximum
    is over words alone. Equal words count as alike until learnt otherwise. Trained by listwise
    softmax against the gains; the epoch is chosen on the validation queries.
    """
    tokens = _tokens(pairs)
    size = int(max(tokens[0].max(), tokens[1].max())) + 1
    is_word = jnp.arange(size) < tokens[2]
    keys = jax.random.split(jax.random.key(seed), 3)
    base = jax.random.normal(keys[0], (size, width)) / np.sqrt(width)
    params = {
        "query": base,
        "title": base,
        "bag_query": 0.1 * jax.random.normal(keys[1], (size, width)),
        "bag_title": 0.1 * jax.random.normal(keys[2], (size, width)),
        "importance": 1.0 * is_word,
        "prior": jnp.zeros(size),
        "features": jnp.zeros(features.shape[1]),
    }

    def score(params: dict[str, jax.Array], query, title, x) -> jax.Array:
        is_query, is_title = query > 0, title > 0
        alike = jnp.einsum("lqd,lctd->lcqt", params["query"][query], params["title"][title])
        best = jnp.where((is_title & is_word[title])[:, :, None], alike, -1e9).max(-1)
        importance = (params["importance"][query] * is_query)[:, None]
        bag_query = (params["bag_query"][query] * is_query[..., None]).sum(1)
        bag_title = (params["bag_title"][title] * is_title[..., None]).sum(2)
        return (
            x @ params["features"]
            + (importance * best).sum(-1)
            + (params["prior"][title] * is_title).sum(-1)
            + jnp.einsum("ld,lcd->lc", bag_query, bag_title)
        )

    def loss(params: dict[str, jax.Array], batch: tuple[jax.Array, ...]) -> jax.Array:
        query, title, x, gain, real = batch
        logits = jnp.where(real, score(params, query, title, x), -1e9)
        target = gain / gain.sum(-1, keepdims=True)
        return -(target * jax.nn.log_softmax(logits)).sum(-1).mean()

    starts = np.flatnonzero(np.diff(pairs.query, prepend=-1))
    length = np.diff([*starts, len(pairs.query)])
    rows = starts[:, None] + np.minimum(np.arange(length.max()), length[:, None] - 1)
    real = np.arange(length.max()) < length[:, None]
    gain = np.where(real, pairs.gain[rows], 0)

    def batch_of(at: np.ndarray) -> tuple[np.ndarray, ...]:
        return tokens[0][starts[at]], tokens[1][rows[at]], features[rows[at]], gain[at], real[at]

    training = np.flatnonzero(pairs.split[starts] == "train")
    steps = epochs * (len(training) // lists)
    optimiser = optax.adamw(optax.cosine_decay_schedule(0.01, steps), weight_decay=0.02)
    state = optimiser.init(params)

    @jax.jit
    def step(params, state, batch):
        gradient = jax.grad(loss)(params, batch)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    predict = jax.jit(score)
    rng = np.random.default_rng(seed)
    best, chosen = -1.0, np.zeros(len(pairs.query))
    for _ in range(epochs):
        order = rng.permutation(training)
        for start in range(0, len(order) - lists + 1, lists):
            params, state = step(params, state, batch_of(order[start : start + lists]))
        scores = np.zeros(len(pairs.query))
        wanted = np.flatnonzero(pairs.split[starts] != "train")
        for at in np.array_split(wanted, max(1, len(wanted) // 100)):
            part = np.asarray(predict(params, *batch_of(at)[:3]))
            scores[rows[at][real[at]]] = part[real[at]]
        if (value := _ndcg(pairs, scores, "validation")) > best:
            best, chosen = value, scores
    return chosen


def _tokens(pairs: Pairs) -> tuple[np.ndarray, np.ndarray, int]:
    """Ids of words and of neighbouring words of query and title [N, T]; 0 is padding.

    The ids of words are below the third value.
    """

    def pieces(text: str) -> list[str]:
        words = words_of(text)
        return words + [f"{one} {two}" for one, two in itertools.pairwise(words)]

    split = [[pieces(text) for text in texts] for texts in (pairs.queries, pairs.titles)]
    train = np.flatnonzero(pairs.split == "train")
    counts = Counter(piece for side in split for row in train for piece in set(side[row]))
    # Every word has an id, so that a word never seen in training still equals itself.
    words = dict.fromkeys(p for side in split for row in side for p in row if " " not in p)
    pairs_of_words = [piece for piece, count in counts.items() if " " in piece and count >= 5]
    known = {piece: 1 + at for at, piece in enumerate([*words, *pairs_of_words])}
    padded = []
    for side in split:
        ids = [[known[piece] for piece in row if piece in known] for row in side]
        width = max(map(len, ids))
        padded.append(np.array([row + [0] * (width - len(row)) for row in ids], np.int32))
    return padded[0], padded[1], 1 + len(words)
