"""The chain from a query to a short list: find, rank, re-rank, diversify."""

import dataclasses
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

from sie_jax.data import sentences
from sie_jax.data.lexical import CorpusStatistics, FieldStatistics
from sie_jax.data.sentences import SentenceEncoder
from sie_jax.data.translation import Translation, item_texts
from sie_jax.errors import UserError
from sie_jax.evaluation.retrieval import NOTHING
from sie_jax.files import read_json, write_json
from sie_jax.retrieval import candidates as describing
from sie_jax.retrieval import diversity, fusion
from sie_jax.retrieval.candidates import Candidates, Items, ListRanker
from sie_jax.retrieval.index import VectorIndex
from sie_jax.retrieval.words import WordIndex
from sie_jax.serving import scoring
from sie_jax.serving.scoring import Scorer

FILE, ITEMS, CORPUS, WORDS = "chain.json", "items.parquet", "corpus.parquet", "translation.parquet"
TOWERS, CROSS, RANKERS = "towers", "cross_encoder", ("ranker", "reranker")
VECTORS, INDEX = "vectors.npy", "index"
FOUND, RANKED, RERANKED, DIVERSIFIED = STEPS = ("found", "ranked", "reranked", "diversified")
LEXICAL, FUSION, TRANSLATED, OF_CROSS = "words", "fusion", "translation", "cross_encoder"
MARKED = "made_of"
DEPTH = 50
"""Items that a chain of words alone finds."""
_NOTHING = FieldStatistics(0, 0.0, {})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How far each step goes.

    found: items that are found and ranked. kept: the first of these, which the cross-encoder reads
    and which are ranked once more; 0 leaves the step out. diversity: λ of maximal marginal
    relevance; 0 leaves the step out.
    """

    found: int
    kept: int = 0
    diversity: float = 0.0


@dataclasses.dataclass(frozen=True)
class Tower:
    """An encoder of texts, and the catalogue by it: unit vectors `[I, H]` and their index."""

    encoder: SentenceEncoder
    vectors: np.ndarray
    index: VectorIndex


class Found(NamedTuple):
    """What the first step found for Q queries.

    lists: the items of all ways together `[Q, n]`, NOTHING behind the last. sums: of reciprocal
    ranks, by which they are ordered. ways: what words and each encoder found by themselves.
    vectors: those of the queries, by each encoder.
    """

    lists: np.ndarray
    sums: np.ndarray
    ways: dict[str, np.ndarray]
    vectors: dict[str, np.ndarray]

    def first(self, depth: int) -> "Found":
        """The first items alone."""
        return self._replace(lists=self.lists[:, :depth], sums=self.sums[:, :depth])

    def of(self, lists: Int[np.ndarray, "Q n"]) -> "Found":
        """The same for lists that were ordered since: a place counts by its rank there."""
        sums = 1 / (fusion.CONSTANT + 1 + np.arange(lists.shape[1]))
        return self._replace(lists=lists, sums=np.broadcast_to(sums, lists.shape))


class Searched(NamedTuple):
    """What each step gave for Q queries.

    steps: by the names of STEPS that were taken, the items `[Q, n]`, NOTHING behind the last. ways:
    what words and each encoder found by themselves. scores `[Q, n]`: by which the last step but
    diversity ranks its items. likeness `[Q, k]`: how like an earlier item each of a diverse list
    is. seconds: what each step took, for all queries.
    """

    steps: dict[str, np.ndarray]
    ways: dict[str, np.ndarray]
    scores: np.ndarray
    likeness: np.ndarray
    seconds: dict[str, float]

    @property
    def items(self) -> np.ndarray:
        """The items in their last order."""
        return list(self.steps.values())[-1]


class Hit(NamedTuple):
    """An item of a list: its id, title and score; `why` says what ranked it there."""

    item_id: str
    title: str
    score: float
    why: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Chain:
    """Everything that a search needs.

    ids, items: of the catalogue. words: its index by words. towers: by their names; the first one
    tells how like two items are. translation: what a ranker takes as a feature, None without one.
    ranker: of what was found. cross: the cross-encoder, whose folder is `cross_folder`, and
    reranker: of what it has read.
    """

    ids: tuple[str, ...]
    items: Items
    item_text: bool
    words: WordIndex
    towers: Mapping[str, Tower]
    translation: Translation | None
    plan: Plan
    ranker: ListRanker | None = None
    cross: Scorer | None = None
    cross_folder: str = ""
    reranker: ListRanker | None = None

    def search(
        self, queries: Sequence[str], *, count: int = 10, plan: Plan | None = None
    ) -> Searched:
        """What each step gives for these queries; the last list has `count` items at most.

        Raises UserError where more items are asked for than there are.
        """
        plan, seconds = plan or self.plan, dict[str, float]()

        def timed(step: str, started: float) -> None:
            seconds[step] = time.perf_counter() - started

        started = time.perf_counter()
        found = self.find(queries, plan.found)
        steps, lists, scores = {FOUND: found.lists}, found.lists, found.sums
        timed(FOUND, started)
        if self.ranker is not None:
            started = time.perf_counter()
            described = self.describe(queries, found)
            scores = spread(lists, described, self.ranker.scores(described))
            steps[RANKED], scores = by_score(lists, scores)
            lists = steps[RANKED]
            timed(RANKED, started)
        if self.reranker is not None and plan.kept:
            started = time.perf_counter()
            part = found.of(lists[:, : plan.kept])
            read = {OF_CROSS: self.read(queries, part.lists)}
            described = self.describe(queries, part, read)
            scores = spread(part.lists, described, self.reranker.scores(described))
            steps[RERANKED], scores = by_score(part.lists, scores)
            lists = steps[RERANKED]
            timed(RERANKED, started)
        likeness = np.zeros((len(queries), 0))
        if plan.diversity:
            started = time.perf_counter()
            lists, likeness = self.diverse(lists, scores, share=plan.diversity, count=count)
            steps[DIVERSIFIED] = lists
            timed(DIVERSIFIED, started)
        steps[list(steps)[-1]] = lists[:, :count]
        return Searched(steps, found.ways, scores, likeness, seconds)

    def find(self, queries: Sequence[str], depth: int) -> Found:
        """The first step: what words and vectors find, fused by reciprocal ranks."""
        ways = {LEXICAL: self.words.search(queries, depth)[0]}
        vectors = {}
        for name, tower in self.towers.items():
            vectors[name] = sentences.encode(tower.encoder, queries)
            ways[name] = tower.index.search(vectors[name], depth)[0]
        return Found(*fusion.fused(list(ways.values()), depth=depth), ways, vectors)

    def describe(
        self,
        queries: Sequence[str],
        found: Found,
        further: Mapping[str, np.ndarray] | None = None,
    ) -> Candidates:
        """The features of what was found: of its words, of each encoder, and `further` ones."""
        lists = found.lists
        row, place = np.nonzero(lists != NOTHING)
        item = lists[row, place]
        titles, texts = self.items.titles, self.items.texts
        of_items = item_texts(
            [titles[one] for one in item.tolist()], [texts[one] for one in item.tolist()]
        )
        asked = [queries[one] for one in row.tolist()]
        assert self.translation is not None
        translated = self.translation.scores(asked, of_items)
        columns = {FUSION: found.sums, TRANSLATED: _filled(lists, row, place, translated)}
        for name, tower in self.towers.items():
            products = np.einsum("mh,mh->m", found.vectors[name][row], tower.vectors[item])
            columns[name] = _filled(lists, row, place, products)
        return describing.described(queries, lists, self.items, columns | dict(further or {}))

    def read(self, queries: Sequence[str], lists: Int[np.ndarray, "Q n"]) -> np.ndarray:
        """The cross-encoder's score of each place; NaN where it gives none, or there is no item."""
        assert self.cross is not None
        row, place = np.nonzero(lists != NOTHING)
        rows = [
            {
                "query_id": str(one),
                "query": queries[one],
                "title": self.items.titles[item],
                "text": self.items.texts[item],
            }
            for one, item in zip(row.tolist(), lists[row, place].tolist(), strict=True)
        ]
        found = scoring.score(self.cross, rows)["score"].to_numpy(zero_copy_only=False)
        return _filled(lists, row, place, found.astype(np.float64), np.nan)

    def diverse(
        self, lists: np.ndarray, scores: np.ndarray, *, share: float, count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The lists `[Q, count]` by maximal marginal relevance, and the likeness of each place."""
        vectors = next(iter(self.towers.values())).vectors
        found = np.full((len(lists), count), NOTHING)
        likeness = np.zeros((len(lists), count))
        for row, own in enumerate(lists):
            there = own != NOTHING
            if not there.any():
                continue
            own = own[there]
            order, like = diversity.marginal(
                scores[row][there], vectors[own], share=share, depth=count
            )
            found[row, : len(order)], likeness[row, : len(order)] = own[order], like
        return found, likeness

    def hits(self, query: str, *, count: int = 10) -> list[Hit]:
        """The list of one query, with what ranked each item there.

        `why` has the place in the list of each way that found the item, its place after each later
        step, and how like an earlier item of the list it is.
        """
        searched = self.search([query], count=count)
        last = next(step for step in reversed(STEPS[:-1]) if step in searched.steps)
        ordered = searched.steps[last][0].tolist()
        of_score = dict(zip(ordered, searched.scores[0].tolist(), strict=False))
        lists = {**searched.ways, **searched.steps}
        ranks = {
            name: {item: place for place, item in enumerate(own[0].tolist(), 1)}
            for name, own in lists.items()
        }
        found = []
        for place, item in enumerate(searched.items[0].tolist()):
            if item == NOTHING:
                break
            why = {name: float(rank[item]) for name, rank in ranks.items() if item in rank}
            if searched.likeness.size:
                why["likeness"] = float(searched.likeness[0, place])
            found.append(Hit(self.ids[item], self.items.titles[item], of_score[item], why))
        return found

    def save(self, folder: Path) -> None:
        """Leaves what `load` reads; the first tower is the encoder of the folder itself."""
        first = True
        names = {}
        for name, tower in self.towers.items():
            own = "." if first else f"{TOWERS}/{name}"
            sentences.save(tower.encoder, folder / own)
            np.save(folder / own / VECTORS, tower.vectors)
            (folder / own / INDEX).mkdir()
            tower.index.save(folder / own / INDEX)
            names[name], first = own, False
        for name, ranker in zip(RANKERS, (self.ranker, self.reranker), strict=True):
            if ranker is not None:
                (folder / name).mkdir()
                ranker.save(folder / name)
        if self.cross is not None:
            shutil.copytree(self.cross_folder, folder / CROSS)
        if self.translation is not None:
            self.translation.save(folder / WORDS)
        self.items.statistics.save(folder / CORPUS)
        table = {"item_id": self.ids, "title": self.items.titles, "text": self.items.texts}
        pq.write_table(pa.table({name: list(one) for name, one in table.items()}), folder / ITEMS)
        told = {
            "plan": dataclasses.asdict(self.plan),
            "towers": names,
            "item_text": self.item_text,
            "kinds": {
                name: "" if one is None else one.kind
                for name, one in zip(RANKERS, (self.ranker, self.reranker), strict=True)
            },
            MARKED: {name: one.index.made_of for name, one in self.towers.items()},
        }
        write_json(folder / FILE, told)

    @classmethod
    def of_words(cls, ids: Sequence[str], titles: Sequence[str], texts: Sequence[str]) -> "Chain":
        """A chain that finds by the words of titles and texts, and does nothing else."""
        items = Items(titles, texts, CorpusStatistics(_NOTHING, _NOTHING))
        words = WordIndex(item_texts(titles, texts))
        return cls(tuple(ids), items, True, words, {}, None, Plan(found=min(DEPTH, len(ids))))

    @classmethod
    def load(cls, folder: str | Path) -> "Chain":
        """The chain in the folder model/ of a run; its index of words is built anew.

        Raises UserError where it cannot be read.
        """
        folder = Path(folder)
        try:
            told = read_json(folder / FILE)
            table = pq.read_table(folder / ITEMS)
            titles, texts = table["title"].to_pylist(), table["text"].to_pylist()
            read = item_texts(titles, texts) if told["item_text"] else titles
            rankers = {
                name: ListRanker.load(folder / name, kind) if kind else None
                for name, kind in told["kinds"].items()
            }
            return cls(
                ids=tuple(table["item_id"].to_pylist()),
                items=Items(titles, texts, CorpusStatistics.load(folder / CORPUS)),
                item_text=bool(told["item_text"]),
                words=WordIndex(read),
                towers={
                    name: _tower(folder / own, told[MARKED][name])
                    for name, own in told["towers"].items()
                },
                translation=Translation.load(folder / WORDS) if (folder / WORDS).exists() else None,
                plan=Plan(**told["plan"]),
                cross=scoring.load(folder / CROSS) if (folder / CROSS).is_dir() else None,
                cross_folder=str(folder / CROSS),
                **rankers,
            )
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{folder} is no folder of a chain ({reason}): give the folder model/ that a run "
                "of recipe chain left"
            ) from None


def _filled(
    lists: np.ndarray, row: np.ndarray, place: np.ndarray, values: np.ndarray, other: float = 0.0
) -> np.ndarray:
    found = np.full(lists.shape, other)
    found[row, place] = values
    return found


def spread(lists: np.ndarray, described: Candidates, scores: np.ndarray) -> np.ndarray:
    """The score of each place of the lists; −∞ where there is no item."""
    return _filled(lists, described.row, described.place, scores, -np.inf)


def by_score(lists: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both by descending score; equal ones as they were, NOTHING last."""
    order = np.argsort(-scores, 1, kind="stable")
    return np.take_along_axis(lists, order, 1), np.take_along_axis(scores, order, 1)


def _tower(folder: Path, made_of: dict[str, str]) -> Tower:
    index = VectorIndex.load(folder / INDEX, made_of)
    return Tower(sentences.load(folder), np.load(folder / VECTORS), index)
