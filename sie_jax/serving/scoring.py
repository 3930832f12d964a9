"""A model and everything else that turns the texts of pairs into its scores."""

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from flax import nnx
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerFast

from sie_jax.data import batches as plans
from sie_jax.data import tokenization
from sie_jax.data.features import RUN
from sie_jax.data.loading import Apart, PlannedBatches
from sie_jax.data.repairs import repair
from sie_jax.data.schema import PAIR_FIELDS, LabelScale, normalise_query
from sie_jax.devices import mesh as meshes
from sie_jax.errors import UserError
from sie_jax.evaluation import from_columns
from sie_jax.evaluation.predictions import PROBABILITY, RELEVANCE, probabilities
from sie_jax.models import PairClassifier, Towers
from sie_jax.models.ranker import ENCODER, Ranker
from sie_jax.models.ranker import FILE as RANKER
from sie_jax.models.towers import is_towers
from sie_jax.passes import sweep
from sie_jax.passes.predict import predict_pass
from sie_jax.serving import ranking
from sie_jax.serving.ranking import Ranking
from sie_jax.serving.settings import FILE, Settings
from sie_jax.tasks.contrastive import Contrastive
from sie_jax.tasks.graded import Graded
from sie_jax.tasks.regression import Regression

LONGEST = 512  # tokens of a pair where neither the folder nor its tokenizer says
SHORTEST = 16  # the fewest tokens that a batch is padded to
GIVEN = ("example_id", "query_id", "item_id", "query", "title")  # passed on as they are
NOT_FINITE = "score_not_finite"  # the reason of a row for which the model gives no number
MADE = "made:"  # what the columns of a part begin with that scores are made of
QUERY, GAIN = f"{RUN}query", f"{RUN}gain"  # no feature is called so


class Scorer(NamedTuple):
    """A model with its tokenizer, settings and labels, placed on the devices.

    task: what the model does with a pair. scale: of the labels, None where it gives a relevance
    alone. ranking: what ranks, None where the model itself does. encoders: those that it takes
    scores of, by the names of their columns. notes: what was left out of the folders or assumed.
    """

    task: Graded | Regression | Contrastive
    params: Any
    tokenizer: PreTrainedTokenizerFast
    settings: Settings
    scale: LabelScale | None
    mesh: Mesh
    ranking: Ranking | None = None
    encoders: Mapping[str, "Scorer"] = MappingProxyType({})
    notes: tuple[str, ...] = ()

    @property
    def predicts(self) -> bool:
        """Whether rows get class probabilities: not where what ranks needs no encoder.

        Nor where the encoder names no classes.
        """
        return self.scale is not None and (self.ranking is None or bool(self.encoders))

    @property
    def fields(self) -> tuple[str, ...]:
        """The cells that a row may have."""
        return (*PAIR_FIELDS, *(() if self.ranking is None else self.ranking.further))


def load(
    folder: str | Path, settings: Settings | None = None, *, encoder_alone: bool = False
) -> Scorer:
    """Reads a model's folder with what its ranker.json names; without one the encoder ranks.

    settings: those of the folder if none are given. A folder whose model has one output needs none:
    max_length is then what its tokenizer says, LONGEST at most. encoder_alone: rank by the folder's
    encoder, whatever ranker.json says, and without the features that its head takes.

    A folder of sentence-transformers (modules.json) scores by the cosine of its vectors.

    Raises:
      UserError: the folder holds no BERT with a classifier and no towers, or its parts do not fit
        together.
    """
    if not str(folder):
        raise UserError("the model's folder has no name: give the folder model/ of a run")
    folder = Path(folder)
    check_folder(folder)
    scorer = _encoder(folder, settings)
    ranker = Ranker.load(folder)
    if encoder_alone or (ranker.kind == ENCODER and not ranker.heads):
        return scorer
    encoders = {
        column: scorer if name == "." else _encoder(folder / name, settings)
        for column, name in ranker.encoders.items()
    }
    made = ranking.load(folder, ranker)
    notes = [note for one in (scorer, *encoders.values()) for note in one.notes]
    notes += made.sentences.notes if made.sentences else ()
    return scorer._replace(ranking=made, encoders=encoders, notes=tuple(dict.fromkeys(notes)))


def check_folder(folder: Path) -> None:
    """Raises UserError for the workdir of a run, whose model is a folder in it."""
    model = folder / "model"
    if (folder / RANKER).exists():
        return
    if (model / RANKER).is_file():
        raise UserError(f"{folder} is the workdir of a run: give the folder of its model, {model}")
    if (folder / "data" / "prepared.json").is_file():
        raise UserError(
            f"{folder} is the workdir of a run that has left no model yet: run the command that "
            "made it to its end, then give its folder model"
        )


def _encoder(folder: Path, settings: Settings | None) -> Scorer:
    model: PairClassifier | Towers
    if is_towers(folder):
        model, notes = Towers.from_pretrained(folder)
    else:
        model, report = PairClassifier.from_pretrained(folder)
        if report.initialised:
            raise UserError(
                f"{folder} has no {', '.join(report.initialised)}: it was not trained to classify "
                "pairs; give the folder model/ of a finished run"
            )
        notes = tuple(report.notes(folder))
    config = model.config
    one = isinstance(model, Towers) or config.num_labels == 1
    if settings is None and ((folder / FILE).exists() or not one):
        settings = Settings.read(folder)
    tokenizer = tokenization.load(folder)
    if settings is None:
        stated = model.max_length if isinstance(model, Towers) else tokenizer.model_max_length
        settings = Settings((), min(stated, LONGEST, config.max_position_embeddings))
        notes += (f"{folder} has no {FILE}: {settings.max_length} tokens are read at most",)
    if config.max_position_embeddings < settings.max_length:
        raise UserError(
            f"{folder} has {config.max_position_embeddings} positions, fewer than the "
            f"{settings.max_length} of max_length: lower it"
        )
    task: Graded | Regression | Contrastive
    scale = None
    graphdef, params = nnx.split(model)
    if isinstance(model, Towers):
        task = Contrastive(graphdef, settings.gains)
    elif one:
        # the pass makes a loss too, which needs a gain and is not read
        task = Regression(graphdef, settings.gains or (0.0,))
    else:
        task = Graded(graphdef, settings.gains)
        names = tuple(config.id2label[i] for i in range(config.num_labels))
        try:
            scale = LabelScale(names, settings.gains)
        except UserError as error:
            raise UserError(f"{folder}, labels {', '.join(names)}: {error}") from None
    if len(tokenizer) > config.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, but vocab_size in config.json "
            f"is {config.vocab_size}: take both from one model"
        )
    mesh = meshes.make(-1)
    placed = meshes.place(mesh, params)
    return Scorer(task, placed, tokenizer, settings, scale, mesh, notes=notes)


def score(scorer: Scorer, rows: Sequence[Mapping[str, Any]], *, batch_size: int = 64) -> pa.Table:
    """Scores rows, which map `scorer.fields` to cells, and returns a row for each.

    Only `query` and `title` are needed. Texts are repaired and tokenised as those that the model
    was trained on; dropout is off. A row with the key `reason` is not scored. What ranks by
    features compares a pair with the others of its query, so give all items of a query at once.
    Rows are of one query if their `query_id`, if they have one, and their query text are the same.

    Returns:
      A table with the columns
        example_id, query_id, item_id, query, title: as given.
        probability_<label>: float32, for each label; not where what ranks needs no encoder, nor
          where the encoder has one output.
        prediction: the most probable label; the lowest grade among equals; likewise.
        score: float64, which ranks the items of a query: of an encoder Σ_c p_c · gain_c or its one
          output, otherwise what `serving.ranking` makes of the columns that ranker.json names.
        reason: null if the row has a score; otherwise why it has none: `missing_query`,
          `missing_title`, `query_too_long`, `title_too_long`, `query_fills_max_length`,
          `score_not_finite` (the model gives NaN or infinity), or the reason that came with it.
    """
    found = described(scorer, rows, batch_size=batch_size)
    usable = found["reason"].is_null().to_numpy(zero_copy_only=False)
    scores = np.full(len(rows), np.nan)
    if usable.any():
        scores[usable] = final(scorer, lambda name: found[MADE + name].to_numpy()[usable])
    return finished(found, scores)


def described(
    scorer: Scorer, rows: Sequence[Mapping[str, Any]], *, batch_size: int = 64
) -> pa.Table:
    """What is known of each row by itself: the columns of `score` but for the score itself.

    In its place stand the columns that `final` makes it of, with MADE before their names.
    """
    encoded, repaired, reasons = _encode(scorer, rows)
    usable = np.flatnonzero([reason is None for reason in reasons])
    texts = [{**rows[at], **repaired[at]} for at in usable.tolist()]
    made, own = {}, None
    for column, encoder in ({GAIN: scorer} if scorer.ranking is None else scorer.encoders).items():
        found = _predicted(encoder, encoded, usable, batch_size)
        predicted = from_columns(found, scorer.settings.gains)
        made[column] = predicted.scores
        if encoder.params is scorer.params and scorer.scale is not None:
            own = probabilities(found), predicted.classes
    if scorer.ranking is not None:
        made |= ranking.columns(scorer.ranking, texts)
    # of other features NaN says that something is not known
    of_models = made.keys() & {GAIN, *scorer.encoders, *ranking.OF_MODELS}
    finite = np.ones(len(usable), bool)
    for name in of_models:
        finite &= np.isfinite(made[name])
    for at in usable[~finite]:
        reasons[at] = NOT_FINITE

    def spread(values: np.ndarray) -> np.ndarray:
        missing = None if values.dtype == object else np.nan
        everywhere = np.full((len(rows), *values.shape[1:]), missing, values.dtype)
        everywhere[usable] = values
        return everywhere

    columns = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in GIVEN}
    if own is not None and scorer.scale is not None:
        shares, classes = own
        names = scorer.scale.names
        missing = np.array([reason is not None for reason in reasons], bool)
        columns |= {
            f"probability_{name}": pa.array(values, pa.float32(), mask=missing)
            for name, values in zip(names, spread(shares).T, strict=True)
        }
        labels = np.full(len(rows), None, object)
        labels[usable] = np.array(names, object)[classes]
        labels[missing] = None
        columns["prediction"] = pa.array(labels, pa.string())
    numbers = np.zeros(len(rows), np.int64)
    numbers[usable] = [_query_number(row) for row in texts]
    columns[MADE + QUERY] = pa.array(numbers)
    columns |= {MADE + name: pa.array(spread(values)) for name, values in made.items()}
    return pa.table({**columns, "reason": pa.array(reasons, pa.string())})


def final(scorer: Scorer, column: Callable[[str], np.ndarray]) -> np.ndarray:
    """The scores of rows without a reason, float64 `[N]`; all rows of a query are among them.

    column: gives one of the columns of `described`, of these rows. They are asked for in turn.
    """
    if scorer.ranking is None:
        return column(GAIN)
    query_index = np.unique(column(QUERY), return_inverse=True)[1]
    return ranking.scores(scorer.ranking, column, query_index)


def finished(described: pa.Table, scores: np.ndarray) -> pa.Table:
    """What `score` returns, of what `described` gave and the scores of its rows, NaN without."""
    kept = [name for name in described.column_names if not name.startswith(MADE)]
    at = kept.index("reason")
    lacking = ~np.isfinite(scores)
    values = pa.array(scores, pa.float64(), mask=lacking)
    broken = pa.array(np.full(len(scores), NOT_FINITE), pa.string(), mask=~lacking)
    reasons = pc.coalesce(described["reason"], broken)
    return described.select(kept).set_column(at, "reason", reasons).add_column(at, "score", values)


def _query_number(row: Mapping[str, Any]) -> int:
    """64 bits that are equal for rows of one query."""
    # ids of several tables may begin at the same number: the text tells such queries apart
    query = f"{row.get('query_id') or ''}\n{normalise_query(row['query'])}"
    digest = hashlib.blake2b(query.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _encode(
    scorer: Scorer, rows: Sequence[Mapping[str, Any]]
) -> tuple[tokenization.EncodedPairs, list[dict[str, str]], list[str | None]]:
    """Of each row the tokens, the repaired texts, and why it cannot be scored, or None."""
    settings = scorer.settings
    queries, items, texts = (
        [repair(row.get(name) or "")[0] if "reason" not in row else "" for row in rows]
        for name in ("query", "title", "text")
    )
    titles = items
    if settings.item_text:
        items = [f"{title} {text}".strip() for title, text in zip(titles, texts, strict=True)]
    encoded = tokenization.encode_pairs(
        scorer.tokenizer,
        queries,
        items,
        max_length=settings.max_length,
        apart=isinstance(scorer.task, Contrastive),
    )
    reasons: list[str | None] = []
    for row, query, title, fits in zip(rows, queries, titles, encoded.fits, strict=True):
        broken = {
            row.get("reason"): "reason" in row,
            "missing_query": not query,
            "missing_title": not title,
            "query_too_long": len(query) > settings.max_query_characters,
            "title_too_long": len(title) > settings.max_title_characters,
            "query_fills_max_length": not fits,
        }
        reasons.append(next((reason for reason, found in broken.items() if found), None))
    repaired = [
        {"query": query, "title": title, "text": text}
        for query, title, text in zip(queries, titles, texts, strict=True)
    ]
    return encoded, repaired, reasons


def _predicted(
    scorer: Scorer, encoded: tokenization.EncodedPairs, usable: np.ndarray, batch_size: int
) -> sweep.Columns:
    """What the model predicts of the usable rows, the columns of its task."""
    if not len(usable):
        grades = 0 if scorer.scale is None else len(scorer.scale.names)
        columns = [f"{PROBABILITY}{grade}" for grade in range(grades)] or [RELEVANCE]
        return dict.fromkeys(columns, np.zeros(0, np.float32))
    made = predict_pass(scorer.task, scorer.mesh)
    apart = _apart(scorer, encoded)
    sizes = np.array([len(ids) for ids in encoded.input_ids])
    plan = plans.in_order(
        tokenization.places(sizes, encoded.query_lengths, apart=apart is not None),
        batch_size=batch_size,
        boundaries=_boundaries(scorer.settings.max_length),
        rows=usable,
    )
    batches = PlannedBatches(
        _Encoded(encoded),
        [plan],
        batch_size=batch_size,
        pad_token_id=scorer.tokenizer.pad_token_id,
        apart=apart,
    )
    # read as they are needed: they are in memory, and a reader ahead takes a second to import
    arrays = (batches[at] for at in range(len(batches)))
    parts = sweep.sweep(made, scorer.params, arrays, scorer.mesh)
    return sweep.gather(parts, usable)


def _apart(scorer: Scorer, encoded: tokenization.EncodedPairs) -> Apart | None:
    if not isinstance(scorer.task, Contrastive):
        return None
    # each an item of its own: a prediction does not ask which are equal
    number, longest = len(encoded.input_ids), scorer.settings.max_length
    return Apart(encoded.query_lengths, np.arange(number), longest)


class _Encoded:
    """Encoded pairs in the form in which `PlannedBatches` reads a data set."""

    def __init__(self, encoded: tokenization.EncodedPairs) -> None:
        self._encoded = encoded

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        return [
            {
                "input_ids": self._encoded.input_ids[row],
                "query_length": self._encoded.query_lengths[row],
                "label": 0,  # batches have one, but a prediction does not read it
            }
            for row in rows
        ]


def _boundaries(max_length: int) -> tuple[int, ...]:
    """Doubling lengths up to the greatest, so that any table compiles few programs."""
    lengths = itertools.takewhile(
        lambda length: length < max_length, (SHORTEST * 2**n for n in itertools.count())
    )
    return (*lengths, max_length)
