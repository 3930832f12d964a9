"""A model and everything else that turns the texts of pairs into its scores."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from flax import nnx
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerFast

from sie_jax.data import batches as plans
from sie_jax.data import tokenization
from sie_jax.data.loading import PlannedBatches, iterate
from sie_jax.data.repairs import repair
from sie_jax.data.schema import LabelScale
from sie_jax.devices import mesh as meshes
from sie_jax.errors import UserError
from sie_jax.evaluation import from_probabilities
from sie_jax.models import PairClassifier
from sie_jax.passes import sweep
from sie_jax.passes.predict import predict_pass
from sie_jax.serving.settings import Settings
from sie_jax.tasks.graded import Graded

SHORTEST = 16  # the fewest tokens that a batch is padded to
GIVEN = ("example_id", "query_id", "item_id", "query", "title")  # passed on as they are
FIELDS = ("query", "title", "text", "example_id", "query_id", "item_id")


class Scorer(NamedTuple):
    """A model with its tokenizer, settings and labels, placed on the devices."""

    graphdef: nnx.GraphDef
    params: Any
    tokenizer: PreTrainedTokenizerFast
    settings: Settings
    scale: LabelScale
    mesh: Mesh


def load(folder: str | Path, settings: Settings | None = None) -> Scorer:
    """Reads a model's folder; `settings` are those of the folder if none are given.

    Raises:
      UserError: the folder holds no BERT with a classifier, or its parts do not fit together.
    """
    folder = Path(folder)
    model, report = PairClassifier.from_pretrained(folder)
    if report.initialised:
        raise UserError(
            f"{folder} has no {', '.join(report.initialised)}: it was not trained to classify "
            "pairs; give the folder model/ of a finished run"
        )
    settings = settings or Settings.read(folder)
    config = model.config
    if config.max_position_embeddings < settings.max_length:
        raise UserError(
            f"{folder} has {config.max_position_embeddings} positions, fewer than the "
            f"{settings.max_length} of max_length: lower it"
        )
    names = tuple(config.id2label[i] for i in range(config.num_labels))
    try:
        scale = LabelScale(names, settings.gains)
    except UserError as error:
        raise UserError(f"{folder}, labels {', '.join(names)}: {error}") from None
    tokenizer = tokenization.load(folder)
    if len(tokenizer) > config.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, but vocab_size in config.json "
            f"is {config.vocab_size}: take both from one model"
        )
    graphdef, params = nnx.split(model)
    mesh = meshes.make(-1)
    return Scorer(graphdef, meshes.place(mesh, params), tokenizer, settings, scale, mesh)


def score(scorer: Scorer, rows: Sequence[Mapping[str, Any]], *, batch_size: int = 64) -> pa.Table:
    """Scores rows, which map FIELDS to texts (`text` may be missing), and returns a row for each.

    Texts are repaired and tokenised as those that the model was trained on; dropout is off. A row
    with the key `reason` is not scored.

    Returns:
      A table with the columns
        example_id, query_id, item_id, query, title: as given.
        probability_<label>: float32, for each label.
        prediction: the most probable label; the lowest grade among equals.
        score: float64, Σ_c p_c · gain_c, which ranks the items of a query.
        reason: null if the row has a score; otherwise why it has none: `missing_query`,
          `missing_title`, `query_too_long`, `title_too_long`, `query_fills_max_length`, or the
          reason that came with the row.
    """
    encoded, reasons = _encode(scorer, rows)
    usable = np.flatnonzero([reason is None for reason in reasons])
    probabilities = np.full((len(rows), len(scorer.scale.names)), np.nan, np.float32)
    if len(usable):
        probabilities[usable] = _probabilities(scorer, encoded, usable, batch_size)
    missing = np.isnan(probabilities[:, 0])
    predicted = from_probabilities(probabilities, scorer.scale.gains)
    names = scorer.scale.names
    return pa.table(
        {
            **{name: pa.array([row.get(name) for row in rows], pa.string()) for name in GIVEN},
            **{
                f"probability_{name}": pa.array(column, pa.float32(), mask=missing)
                for name, column in zip(names, probabilities.T, strict=True)
            },
            "prediction": pa.array(np.array(names, object)[predicted.classes], mask=missing),
            "score": pa.array(predicted.scores, pa.float64(), mask=missing),
            "reason": pa.array(reasons, pa.string()),
        }
    )


def _encode(
    scorer: Scorer, rows: Sequence[Mapping[str, Any]]
) -> tuple[tokenization.EncodedPairs, list[str | None]]:
    """The tokens of each row, and the reason why it cannot be scored, or None."""
    settings = scorer.settings
    queries, items, texts = (
        [repair(row.get(name) or "")[0] if "reason" not in row else "" for row in rows]
        for name in ("query", "title", "text")
    )
    titles = items
    if settings.item_text:
        items = [f"{title} {text}".strip() for title, text in zip(titles, texts, strict=True)]
    encoded = tokenization.encode_pairs(
        scorer.tokenizer, queries, items, max_length=settings.max_length
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
    return encoded, reasons


def _probabilities(
    scorer: Scorer, encoded: tokenization.EncodedPairs, usable: np.ndarray, batch_size: int
) -> np.ndarray:
    """The class probabilities `[U, K]` of the usable rows."""
    plan = plans.in_order(
        np.array([len(ids) for ids in encoded.input_ids]),
        batch_size=batch_size,
        boundaries=_boundaries(scorer.settings.max_length),
        rows=usable,
    )
    batches = PlannedBatches(
        _Encoded(encoded),
        [plan],
        batch_size=batch_size,
        pad_token_id=scorer.tokenizer.pad_token_id,
    )
    predict = predict_pass(Graded(scorer.graphdef, scorer.scale.gains), scorer.mesh)
    parts = sweep.sweep(predict, scorer.params, iterate(batches), scorer.mesh)
    return sweep.gather(parts, usable)["probabilities"]


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
