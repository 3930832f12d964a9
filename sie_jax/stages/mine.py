"""Mine: the pairs, and beside them items that were found for the training queries and not judged.

The guard that says how likely such an item is wanted is a ranker of features (`retrieval.
candidates`), which no vectors are among: it sees other things than the towers that it guards, and
each query is judged by one that was fitted without it.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sie_jax import processes
from sie_jax.data import folds as dealing
from sie_jax.data import preparing, sentences
from sie_jax.data import translation as translating
from sie_jax.data.preparing import Prepared, Selection
from sie_jax.data.schema import REJECTED_SCHEMA, Source
from sie_jax.data.section import DataConfig
from sie_jax.evaluation.retrieval import NOTHING
from sie_jax.files import whole_folder
from sie_jax.models.ranker import BLEND
from sie_jax.retrieval import candidates as describing
from sie_jax.retrieval import fusion, negatives
from sie_jax.retrieval.candidates import Items
from sie_jax.retrieval.index import IndexConfig, VectorIndex
from sie_jax.retrieval.negatives import NegativesConfig
from sie_jax.retrieval.words import WordIndex
from sie_jax.stages.asked import Asked, asked_of, catalogue_of, texts_of
from sie_jax.stages.catalogue import Named
from sie_jax.stages.score import Scores
from sie_jax.stages.train import Trained
from sie_jax.tables.provenance import IDENTITY
from sie_jax.tables.spool import write_parquet
from sie_jax.workdir import Job, Made, stage

MINED, FILE = "mined", "doubt.parquet"
DOUBT = "doubtful_groups"
"""The score that is a chance that the label is not to be believed."""
UNJUDGED = UNKNOWN = -1
FOLDS = 5
_NONE = REJECTED_SCHEMA.empty_table()


def _folder(made: Made[Any]) -> str:
    return f"{MINED}/{made.stage.partition('/')[2]}"


def read(made: Made[Prepared]) -> Prepared:
    """The pairs with what was mined."""
    return preparing.load(made.folder / _folder(made))


def doubts(made: Made[Any]) -> Scores:
    """The doubt about each training pair, 0 of judged ones, as the score DOUBT."""
    return Scores(pq.read_table(made.folder / _folder(made) / FILE), {})


@stage(leaves=lambda given: (f"{MINED}/{given['name'].name}",), read=read, run="name")
def mine(
    job: Job,
    name: Named,
    prepared: Made[Prepared],
    vectors: Made[np.ndarray],
    trained: Made[Trained],
    *,
    kind: str,
    config: NegativesConfig,
    data: DataConfig,
    seed: int,
) -> None:
    """Leaves mined/NAME: the pairs with further training rows of the lowest grade."""
    pairs = prepared.value
    ids, texts = texts_of(pairs, item_text=data.item_text)
    asked = asked_of(pairs, "train", ids)
    lists = _lists(asked, texts, vectors.value, trained.value.model, config.depth)
    judged = asked.labels(lists, other=UNJUDGED)
    guard = _doubts(pairs, asked, lists, judged, seed)
    found = negatives.mined(
        lists,
        judged != UNJUDGED,
        guard,
        kind=kind,
        each=config.each,
        generator=np.random.default_rng([seed, 11]),
    )
    added = _rows(pairs, asked, found, ids)
    job.say(f"{added.num_rows:,} items mined for {len(asked.queries):,} training queries ({kind})")
    kept = pa.concat_tables([pairs.pairs.select(added.column_names), added])
    encoding = data.encoding(str(pairs.folder / "tokenizer"), apart=True)

    def leave() -> None:
        with whole_folder(job.folder / MINED / name.name) as temporary:
            source = Source(kept, pairs.scale, f"{pairs.counts['source']} and mined items")
            preparing.store(Selection(source, kept, _NONE, {}), temporary, encoding)
            training = preparing.load(temporary).split("train")
            doubts = np.concatenate([np.zeros(training.num_rows - len(found.doubt)), found.doubt])
            table = training.select(IDENTITY).append_column(DOUBT, pa.array(doubts))
            write_parquet(temporary / FILE, table)

    processes.alone(leave)


def _lists(
    asked: Asked, texts: list[str], vectors: np.ndarray, model: str, depth: int
) -> np.ndarray:
    """What words and towers find for the training queries, fused."""
    depth = min(depth, len(texts))
    of_queries = sentences.encode(sentences.load(model), asked.queries)
    return fusion.fused(
        [
            WordIndex(texts).search(asked.queries, depth)[0],
            VectorIndex.build(vectors, IndexConfig(), {}).search(of_queries, depth)[0],
        ],
        depth=depth,
    )[0]


def _doubts(
    pairs: Prepared, asked: Asked, lists: np.ndarray, judged: np.ndarray, seed: int
) -> np.ndarray:
    """The chance that an item is wanted, of every place of the lists, by what never saw its query.

    Wanted is what has a positive gain. What nobody judged counts as not wanted where the guard
    learns: judged places alone would leave it nothing to tell wanted items from where only those
    are kept, and elsewhere only what a search of words had put there. So all chances are too low,
    and their order is what counts.
    """
    table, gains = catalogue_of(pairs), np.array(pairs.scale.gains)
    items = Items.of(table["title"].to_pylist(), table["text"].to_pylist())
    folds = dealing.assign(asked.queries, folds=min(FOLDS, len(asked.queries)), seed=seed)
    translated = _translated(pairs, asked, lists, items, folds)
    described = describing.described(asked.queries, lists, items, {"translation": translated})
    labels = judged[described.row, described.place]
    gain = np.where(labels != UNJUDGED, gains[np.maximum(labels, 0)], 0.0)
    scores = np.zeros(len(gain))
    for fold in np.unique(folds):
        inside = folds[described.row] == fold
        learnt = ~inside
        if not (gain[learnt] > 0).any():
            continue
        part = described._replace(
            **{name: getattr(described, name)[learnt] for name in ("row", "place", "item")},
            values=described.values[learnt],
        )
        ranker = describing.fitted(BLEND, part, gain[learnt], folds[part.row])
        scores[inside] = ranker.scores(described)[inside]
    a, b = negatives.chance(scores, gain > 0)
    found = np.ones(lists.shape)
    found[described.row, described.place] = 1 / (1 + np.exp(-(a + b * scores)))
    return found


def _translated(
    pairs: Prepared, asked: Asked, lists: np.ndarray, items: Items, folds: np.ndarray
) -> np.ndarray:
    """The score of each place by word translation that was learnt without the query's fold."""
    training = pairs.split("train")
    queries = training["query"].to_pylist()
    given = translating.item_texts(training["title"].to_pylist(), training["text"].to_pylist())
    gains = np.array(pairs.scale.gains)[training["label"].to_numpy()]
    fold_of = dict(zip(asked.queries, folds.tolist(), strict=True))
    of_row = np.array([fold_of[query] for query in queries])
    texts = translating.item_texts(items.titles, items.texts)
    found = np.zeros(lists.shape)
    for fold in np.unique(folds):
        others = np.flatnonzero(of_row != fold)
        known = translating.learn(
            [queries[row] for row in others], [given[row] for row in others], gains[others]
        )
        row, place = np.nonzero((lists != NOTHING) & (folds == fold)[:, None])
        found[row, place] = known.scores(
            [asked.queries[one] for one in row], [texts[one] for one in lists[row, place]]
        )
    return found


def _rows(pairs: Prepared, asked: Asked, found: negatives.Negatives, ids: list[str]) -> pa.Table:
    """What was mined as training pairs; what is known of pairs alone is null."""
    training, table = pairs.split("train"), catalogue_of(pairs)
    id_of = dict(zip(training["query"].to_pylist(), training["query_id"].to_pylist(), strict=True))
    queries = [asked.queries[row] for row in found.row]
    taken = table.take(pa.array(found.item)).combine_chunks()
    columns: dict[str, Any] = {
        "example_id": [
            f"mined:{id_of[query]}:{ids[item]}"
            for query, item in zip(queries, found.item, strict=True)
        ],
        "query_id": [id_of[query] for query in queries],
        "query": queries,
        **{name: taken[name].to_pylist() for name in ("item_id", "title", "text")},
        "label": np.zeros(len(queries), np.int32),
        "truth": np.full(len(queries), UNKNOWN, np.int32),
        "split": ["train"] * len(queries),
    }
    schema = pa.schema([field for field in pairs.pairs.schema if field.name != "length"])
    nothing = [None] * len(queries)
    return pa.table([columns.get(field.name, nothing) for field in schema], schema=schema)
