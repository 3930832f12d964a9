"""Features: what can be said of each pair without training, from its words and a checkpoint."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sie_jax import processes, remote
from sie_jax.data import features as describing
from sie_jax.data import lexical, sentences
from sie_jax.data.features import Pairs
from sie_jax.data.lexical import CorpusStatistics
from sie_jax.data.preparing import Prepared
from sie_jax.data.schema import ATTRIBUTE, NUMERIC, SPLITS
from sie_jax.tables.spool import write_parquet
from sie_jax.workdir import Job, Made, stage

FILE, CORPUS = "features.parquet", "corpus.json"


class Features(NamedTuple):
    """The features `[N, F]` of each split's pairs, in their order, as they are.

    statistics: of the words of the catalogue, which make them again for other texts.
    """

    names: tuple[str, ...]
    values: dict[str, np.ndarray]
    statistics: CorpusStatistics

    def column(self, name: str, split: str) -> np.ndarray:
        """One feature of a split's pairs."""
        return self.values[split][:, self.names.index(name)]


def read(made: Made[Features]) -> Features:
    """The features of all pairs."""
    table = pq.read_table(made.folder / FILE)
    names = tuple(name for name in table.column_names if name not in ("example_id", "split"))
    values = np.stack([table[name].to_numpy() for name in names], 1)
    splits = table["split"].to_numpy(zero_copy_only=False)
    return Features(
        names,
        {split: values[splits == split] for split in SPLITS},
        CorpusStatistics.load(made.folder / CORPUS),
    )


@stage(leaves=(FILE, CORPUS), read=read)
def features(job: Job, prepared: Made[Prepared], *, checkpoint: str) -> None:
    """Leaves features.parquet and corpus.json.

    The user's own columns of numbers are the last features, by the names that the user gave.

    checkpoint: the folder of a pretrained encoder, whose cosine is a feature; "" where there is
    none.
    """
    pairs = pa.concat_tables([prepared.value.split(split) for split in SPLITS])
    numeric: dict[str, np.ndarray] = {}
    if folder := remote.local(checkpoint):
        encoder = sentences.load(folder)
        for note in encoder.notes:
            job.say(note)
        queries, titles, texts = (pairs[name].to_pylist() for name in ("query", "title", "text"))
        further = texts if any(texts) else None
        numeric |= sentences.features(encoder, queries, titles, further)
        distinct = (len(set(one)) for one in (queries, titles, further or ()))
        job.meter("cosine").charge(examples=pairs.num_rows, forward_equivalents=sum(distinct))
    for name in pairs.column_names:
        if name.startswith(NUMERIC):
            numeric[name.removeprefix(NUMERIC)] = pairs[name].to_numpy()  # a null becomes NaN
    statistics = _statistics(prepared.value)
    found = describing.standardised(_described(pairs, numeric), statistics)
    table = pairs.select(["example_id", "split"])
    for name, values in zip(found.names, found.values.T, strict=True):
        table = table.append_column(name, pa.array(values))

    def leave() -> None:
        statistics.save(job.folder / CORPUS)
        write_parquet(job.folder / FILE, table)

    processes.alone(leave)


def _statistics(prepared: Prepared) -> CorpusStatistics:
    """Of the titles and texts of all items, judged or not; labels have no part in it."""
    columns = ["item_id", "title", "text"]
    items = prepared.pairs.select(columns)
    catalogue = prepared.folder / "catalogue.parquet"
    if catalogue.exists():
        items = pa.concat_tables([items, pq.read_table(catalogue).select(columns)])
    distinct = items.group_by("item_id").aggregate([("title", "min"), ("text", "min")])
    return CorpusStatistics(
        lexical.count(distinct["title_min"].to_pylist()),
        lexical.count(distinct["text_min"].to_pylist()),
    )


def _described(pairs: pa.Table, numeric: dict[str, np.ndarray]) -> Pairs:
    """The pairs as features are made of them."""
    return Pairs(
        pairs["query"].to_pylist(),
        pairs["title"].to_pylist(),
        pairs["text"].to_pylist(),
        pairs["query_id"].to_pylist(),
        {
            name.removeprefix(ATTRIBUTE): pairs[name].to_pylist()
            for name in pairs.column_names
            if name.startswith(ATTRIBUTE)
        },
        numeric,
    )
