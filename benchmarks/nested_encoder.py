"""Encoders in nested cross-validation: scores of pairs by models that never saw them.

A stack is fitted on scores of models that did not see the pair's query, and in nested cross-
validation these models may not see the outer fold either. So a model is trained for every pair of
folds that is left out. The one without {i, j} gives the inner scores of fold i where j is the outer
fold, and those of fold j where i is. With one model for each single fold, which scores that fold
as the outer one, K(K - 1)/2 + K models (15 of five folds) are all that nested stacking needs.

Each model is a stage of a workdir, trained by the product's own code: it is made once, and a
stopped one goes on from its checkpoint. Its scores are kept in results/nested_scores too, with the
commit that made them, so that another machine goes on where one stopped. Where the schedule chooses
among a run's weights, an eighth of the queries that it may learn from choose, and it does not train
on them.
"""

import functools
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from rich.console import Console
from same_results import commit_of

from sie_jax.data import batches, builders, folds, preparing, tokenization
from sie_jax.data import features as describing
from sie_jax.data.lexical import CorpusStatistics, FieldStatistics
from sie_jax.data.preparing import Prepared
from sie_jax.data.schema import LabelScale, normalise_query
from sie_jax.data.section import DataConfig
from sie_jax.devices import mesh as meshes
from sie_jax.evaluation import from_columns
from sie_jax.files import whole, whole_folder
from sie_jax.models.section import ModelConfig
from sie_jax.stages.features import Features
from sie_jax.stages.pair_runs import Examples, PairRuns, Start
from sie_jax.stages.selection import trained
from sie_jax.tasks import apart
from sie_jax.training.run import Run
from sie_jax.training.section import TrainConfig
from sie_jax.training.tracking import TrackingConfig
from sie_jax.workdir import Job, Made, Workdir, stage

SPLIT = "train"  # which all pairs are in: folds take the place of splits
BUCKETS = 5
JUDGES = 8  # the share of the queries that choose among a run's weights is one in so many


class Scores(NamedTuple):
    """The scores `gains` `[n]` of the pairs at the places `rows`."""

    rows: np.ndarray
    gains: np.ndarray


def read(made: Made[Scores]) -> Scores:
    """What a model says of the folds that were left out."""
    with np.load(made.folder / _file(made.stage.partition("/")[2])) as arrays:
        return Scores(arrays["rows"], arrays["gains"])


def _file(run: str) -> str:
    return f"scores/{run}.npz"


@stage(leaves=lambda given: (_file(given["run"].name),), read=read, run="run")
def left_out(job: Job, run: Run, start: Start, *, left: tuple[int, ...], number: int) -> None:
    """Trains on the folds that are not in `left`, and leaves the scores of those that are.

    number: of folds, dealt by the seed of the run.
    """
    runs = PairRuns(job, start)
    fold = _folds(runs.prepared.pairs, number, run.seed)
    rows = np.flatnonzero(np.isin(fold, left))
    training = np.flatnonzero(~np.isin(fold, left))
    judges = None
    if run.train.select:
        queries = _queries(runs.prepared.pairs)[training]
        chosen = folds.assign(queries.tolist(), folds=JUDGES, seed=run.seed) == 0
        training, judges = training[~chosen], (SPLIT, training[chosen])
    selected = trained(runs, run, Examples(rows=training), judges=judges)
    columns = runs.predicted(selected.params, SPLIT, rows)
    gains = from_columns(columns, runs.prepared.scale.gains).scores
    path = job.folder / _file(run.name)
    path.parent.mkdir(exist_ok=True)
    with whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, rows=rows, gains=gains)
    job.clear_runs()  # 0.3 GB a model, which nothing asks for again


def _folds(pairs: pa.Table, number: int, seed: int) -> np.ndarray:
    return folds.assign(_queries(pairs).tolist(), folds=number, seed=seed)


def _queries(pairs: pa.Table) -> np.ndarray:
    return np.array([normalise_query(query) for query in pairs["query"].to_pylist()])


@dataclass(frozen=True)
class Models:
    """Those of one recipe and data set for one deal of the folds, trained when first asked for.

    start, workdir: of their training. number: of folds, dealt by the seed of `start`. kept: the
    file of the scores.
    """

    start: Start
    workdir: Workdir
    number: int
    kept: Path

    def digest(self) -> str:
        """Stands for the pairs and for how models are trained."""
        start = self.start
        content = [start.prepared.id, asdict(start.train), start.max_length, self.number]
        content += [] if start.features is None else [start.features.id]
        return hashlib.blake2b(json.dumps(content).encode()).hexdigest()[:12]

    @functools.cached_property
    def _kept(self) -> dict[str, Any]:
        """The scores of each model that is kept, by the folds that it did not see, and commits."""
        found: dict[str, Any] = {}
        if self.kept.exists():
            with np.load(self.kept) as arrays:
                found = dict(arrays)
        of = self.digest()
        return found if str(found.get("of", "")) == of else {"of": np.array(of)}

    def without(self, *left: int) -> Scores:
        """What the model that saw none of these folds says of them."""
        left, seed = tuple(sorted(left)), self.start.seed
        name = "-".join(map(str, left))
        if name not in self._kept:
            run = Run(f"{seed}-without-{name}", seed, self.start.train)
            made = left_out(self.workdir, run, self.start, left=left, number=self.number).value
            self._kept[name] = made.gains.astype(np.float32)
            self._kept[f"commit {name}"] = np.array(commit_of("HEAD"))
            self.kept.parent.mkdir(parents=True, exist_ok=True)
            with whole(self.kept) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, **self._kept)
        fold = _folds(self.start.prepared.value.pairs, self.number, seed)
        return Scores(np.flatnonzero(np.isin(fold, left)), self._kept[name])

    def outer(self, fold: int) -> np.ndarray:
        """The scores `[N]` of the pairs of a fold by the model that did not see it; others 0."""
        rows, gains = self.without(fold)
        result = np.zeros(self.start.prepared.value.pairs.num_rows)
        result[rows] = gains
        return result

    def nested(self, outer: int, *, several: bool) -> np.ndarray:
        """The scores of all pairs `[N]`, by models that saw neither the fold `outer` nor theirs.

        several: whether pairs of the outer fold get the mean of the models that gave the others
        their scores, in place of the score of the one model that saw all other folds.
        """
        fold = _folds(self.start.prepared.value.pairs, self.number, self.start.seed)
        result = np.zeros(len(fold))
        for inner in (one for one in range(self.number) if one != outer):
            rows, gains = self.without(inner, outer)
            here = fold[rows] == inner
            result[rows[here]] = gains[here]
            if several:
                result[rows[~here]] += gains[~here] / (self.number - 1)
        return result if several else np.where(fold == outer, self.outer(outer), result)


def models_of(
    pairs: pa.Table,
    scale: LabelScale,
    folder: Path,
    *,
    pretrained: Path,
    item_text: bool,
    features: describing.Features | None,
    max_length: int,
    train: TrainConfig,
    number: int,
    kept: Path,
) -> Models:
    """The models of clean pairs, all of which are in the folds, whatever splits they have.

    item_text: whether they read an item's further text too. features: those of the pairs, where the
    head takes them. kept: the file of their scores.
    """
    tokenizer = tokenization.load(pretrained)
    data = DataConfig(max_length=max_length, item_text=item_text)
    encoding = data.encoding(str(pretrained), apart=apart(train.task))
    tokens = pa.Table.from_batches(
        preparing.encoded(pairs, tokenizer, encoding), schema=builders.TOKENS_SCHEMA
    )
    lengths = preparing.places(tokens, encoding)
    if not lengths.all():
        raise ValueError(f"{(lengths == 0).sum()} queries leave no room for their item")
    in_one = pa.array([SPLIT] * pairs.num_rows)
    pairs = pairs.set_column(pairs.schema.get_field_index("split"), "split", in_one)
    content = [column.to_pylist() for column in (*tokens.columns, pairs["example_id"])]
    digest = hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()
    stored = folder / f"data-{digest}"
    if not stored.exists():
        with whole_folder(stored) as temporary:
            builders.write(temporary / "tokens", {SPLIT: builders.shards(tokens)})
    boundaries = batches.bucket_lengths(lengths, buckets=BUCKETS, max_length=max_length)
    prepared = Prepared(pairs, scale, tokenizer, boundaries, {SPLIT: lengths}, {}, stored)
    start = Start(
        Made("prepare", digest, {}, folder, lambda made: prepared),
        None,
        ModelConfig(pretrained=str(pretrained)),
        max_length,
        train.schedule(),
        train.seed,
        features=None if features is None else _of_head(features, folder),
    )
    workdir = Workdir(
        folder, meshes.make(1), Console(), {"train": asdict(train)}, train, TrackingConfig()
    )
    return Models(start, workdir, number, kept)


def _of_head(known: describing.Features, folder: Path) -> Made[Features]:
    """The features of all pairs, as a stage would have left them."""
    digest = hashlib.blake2b(known.values.tobytes(), digest_size=16).hexdigest()
    nothing = FieldStatistics(0, 0.0, {})  # nothing is described anew
    made = Features(known.names, {SPLIT: known.values}, CorpusStatistics(nothing, nothing))
    return Made("features", digest, {}, folder, lambda _: made)
