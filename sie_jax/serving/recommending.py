"""The folder of a recommender: items for a history of item ids, as the run that left it ranks."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from flax import nnx
from jaxtyping import Float
from safetensors.numpy import load_file, save_file

from sie_jax.errors import UserError
from sie_jax.files import read_json, write_json
from sie_jax.models import recommenders
from sie_jax.models.histories import HistoryModel, HistoryShape
from sie_jax.models.recommenders import PairwiseFactors, Recommender

RECOMMENDER, ITEMS, USERS, WEIGHTS, VECTORS = (
    "recommender.json",
    "items.parquet",
    "users.parquet",
    "model.safetensors",
    "item_vectors.npy",
)
SEQUENCE = "sequence"
PARTNER = "partner"
"""The folder of what a network is blended with."""


class Recommendation(NamedTuple):
    """An item, its text, and the score that it is ranked by."""

    item_id: str
    text: str
    score: float


@dataclasses.dataclass(frozen=True)
class HistoryRecommender:
    """What ranks all items for a history: a network (`model`), or one of `models.recommenders`.

    With both of them they are a blend: z + share · z', standardised scores.

    items, texts: of items 1 to I. met: which of them were met in training `[I + 1]`. repeats:
    whether items of the history may be recommended. events: the names of its types of events.
    users: the number of each user who was there in training, where that changes what is
    recommended.
    """

    items: tuple[str, ...]
    texts: tuple[str, ...]
    met: np.ndarray
    repeats: bool
    events: tuple[str, ...]
    model: HistoryModel | None = None
    vectors: np.ndarray | None = None
    other: Recommender | None = None
    share: float = 0.0
    users: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @classmethod
    def load(cls, folder: str | Path) -> "HistoryRecommender":
        """The recommender in the folder model/ of a run; UserError where it cannot be read."""
        folder = Path(folder)
        try:
            told = read_json(folder / RECOMMENDER)
            table = pq.read_table(folder / ITEMS)
            common: dict[str, Any] = {
                "items": tuple(table["item_id"].to_pylist()),
                "texts": tuple(table["text"].to_pylist()),
                "met": np.concatenate([[False], table["met"].to_numpy()]),
                "repeats": bool(told["repeats"]),
                "events": tuple(told["events"]),
                "users": _numbers(folder / USERS),
            }
            if told["kind"] != SEQUENCE:
                return cls(**common, other=recommenders.load(folder))
            if told["share"]:
                common |= {"share": float(told["share"])}
                common |= {"other": recommenders.load(folder / PARTNER)}
            vectors = np.load(folder / VECTORS) if told["shape"]["text"] else None
            model = _restored(HistoryShape(**told["shape"]), folder / WEIGHTS)
            return cls(**common, model=model, vectors=vectors)
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{folder} is no folder of a recommender ({reason}): give the folder model/ that a "
                "run left"
            ) from None

    def recommend(
        self,
        history: Sequence[str],
        *,
        count: int = 10,
        user: str = "",
        events: Sequence[str] | None = None,
        seconds: Sequence[float] | None = None,
    ) -> list[Recommendation]:
        """The first `count` items for the ids of a history, the oldest first.

        user: the id, where it is known; one that was not there in training is known by the history
        alone. events: the type of each event, the first of `events` where None. seconds: since the
        event before, read as unknown where None.

        Raises UserError for a history of which no item is known, and for an unknown event. Unknown
        items of it are passed over.
        """
        number = {item: place for place, item in enumerate(self.items, 1)}
        known = [place for place, item in enumerate(history) if item in number]
        if not known:
            raise UserError("no item of the history is in the catalogue: give ids of items.parquet")
        read = np.array([number[history[place]] for place in known])
        number_of = np.array([self.users.get(user, -1)])
        scores = self._scores(read, number_of, known, events, seconds)
        scores[0] = -np.inf
        if not self.repeats:
            scores[read] = -np.inf
        order = np.argsort(-scores, kind="stable")[:count]
        return [
            Recommendation(self.items[one - 1], self.texts[one - 1], float(scores[one]))
            for one in order
            if scores[one] > -np.inf
        ]

    def _scores(
        self,
        read: np.ndarray,
        user: np.ndarray,
        known: Sequence[int],
        events: Sequence[str] | None,
        seconds: Sequence[float] | None,
    ) -> np.ndarray:
        if self.model is None:
            assert self.other is not None
            return self.other.scores(user, [read])[0].astype(np.float64)
        ours = self._of_model(read, known, events, seconds)
        if self.other is None:
            return ours
        theirs = self.other.scores(user, [read]).astype(np.float64)
        return blended(ours[None], theirs, self.share)[0]

    def _of_model(
        self,
        read: np.ndarray,
        known: Sequence[int],
        events: Sequence[str] | None,
        seconds: Sequence[float] | None,
    ) -> np.ndarray:
        assert self.model is not None
        kinds = np.zeros(len(read), np.int64)
        if events is not None:
            if unknown := [one for one in events if one not in self.events]:
                raise UserError(
                    f"the event {unknown[0]!r} is none of {', '.join(self.events)}: give one of "
                    "them"
                )
            kinds = np.array([self.events.index(events[place]) for place in known])
        gaps = np.zeros(len(read), np.int64)
        if seconds is not None:
            since = np.maximum([seconds[place] for place in known], 1.0)
            gaps = np.clip(1 + np.floor(np.log2(since)), 1, 23).astype(np.int64)
            gaps[0] = 0
        length = self.model.shape.length
        texts = None if self.vectors is None else jnp.asarray(self.vectors)
        found = self.model.last_logits(
            jnp.asarray(read[-length:]),
            jnp.asarray(kinds[-length:]),
            jnp.asarray(gaps[-length:]),
            texts,
            jnp.asarray(self.met),
        )
        scores = np.array(found, np.float64)
        if texts is None:
            scores[~self.met] = -np.inf
        return scores


def blended(
    ours: Float[np.ndarray, "B I+1"], theirs: Float[np.ndarray, "B I+1"], share: float
) -> Float[np.ndarray, "B I+1"]:
    """z + share · z', each standardised over the items that ours scores; −∞ for the others."""
    there = ours > -np.inf
    there[:, 0] = False
    total = np.full(ours.shape, -np.inf)
    size = there.sum(1, keepdims=True)

    def standardised(scores: np.ndarray) -> np.ndarray:
        known = np.where(there, scores, 0)
        mean = known.sum(1, keepdims=True) / size
        spread = np.sqrt((np.where(there, known - mean, 0) ** 2).sum(1, keepdims=True) / size)
        return (known - mean) / np.where(spread > 0, spread, 1)

    total[there] = (standardised(ours) + share * standardised(theirs))[there]
    return total


def save(
    folder: Path,
    *,
    items: Sequence[str],
    texts: Sequence[str],
    met: np.ndarray,
    repeats: bool,
    events: Sequence[str],
    model: HistoryModel | None = None,
    vectors: np.ndarray | None = None,
    other: Recommender | None = None,
    share: float = 0.0,
    users: Mapping[str, int] | None = None,
) -> None:
    """Leaves what `HistoryRecommender.load` reads; the arguments are its fields.

    users are kept only where `other` has a vector of each.
    """
    told: dict[str, Any] = {"kind": SEQUENCE, "repeats": repeats, "events": list(events)}
    if model is None:
        assert other is not None
        recommenders.save(other, folder)
        told["kind"] = other.kind
    else:
        told |= {"shape": dataclasses.asdict(model.shape), "share": share}
        if other is not None:
            (folder / PARTNER).mkdir()
            recommenders.save(other, folder / PARTNER)
        flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
        arrays = {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in flat}
        save_file(arrays, folder / WEIGHTS)
        if vectors is not None:
            np.save(folder / VECTORS, vectors)
    if users and other is not None and other.kind == PairwiseFactors.kind:
        known = {"user_id": list(users), "number": list(users.values())}
        pq.write_table(pa.table(known), folder / USERS)
    table = pa.table({"item_id": list(items), "text": list(texts), "met": met[1:]})
    pq.write_table(table, folder / ITEMS)
    write_json(folder / RECOMMENDER, told)


def _numbers(path: Path) -> dict[str, int]:
    """The users of a file by their ids; none without it."""
    if not path.exists():
        return {}
    table = pq.read_table(path)
    return dict(zip(table["user_id"].to_pylist(), table["number"].to_pylist(), strict=True))


def _restored(shape: HistoryShape, path: Path) -> HistoryModel:
    """The model of a shape with the weights of a file."""
    model = nnx.eval_shape(lambda: HistoryModel(shape, rngs=nnx.Rngs(0)))
    graphdef, params = nnx.split(model)
    stored = load_file(path)
    flat = nnx.to_flat_state(params)
    names = [".".join(map(str, name)) for name, _ in flat]
    if sorted(names) != sorted(stored):
        raise ValueError(f"{path.name} has other weights than recommender.json says")
    for name, (_, leaf) in zip(names, flat, strict=True):
        if leaf.shape != stored[name].shape:
            raise ValueError(f"{name} in {path.name} has another shape")
        leaf.set_value(jnp.asarray(stored[name]))
    made: HistoryModel = nnx.merge(graphdef, nnx.from_flat_state(flat))
    return made
