"""What ranks: the content of ranker.json, which stands beside the encoder in a model's folder."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath

from sie_jax.errors import UserError
from sie_jax.files import read_json, write_json
from sie_jax.models.linear import LinearRanker

FILE = "ranker.json"
ENCODER, LINEAR, STACK = "encoder", "linear", "stack"
TREES, BLEND, TRANSLATION = "trees", "blend", "translation"
# which of its parts each kind needs
_PARTS = {
    ENCODER: (),
    LINEAR: ("linear", "corpus"),
    TREES: ("trees", "corpus"),
    BLEND: ("linear", "corpus", "trees"),
    STACK: ("linear", "corpus", "stack", "translation"),
    TRANSLATION: ("translation",),
    "token_overlap": (),
    "bm25": ("corpus",),
    "checkpoint": ("checkpoint",),
    "checkpoint_text": ("checkpoint",),
    "current": ("column",),
}


@dataclass(frozen=True)
class Ranker:
    """How the score of a pair is made.

    Attributes:
      kind: `encoder`: the expected gain under the encoder of the folder, or its one output, and the
        sum of features that its head takes, if any. `linear`: a sum of
        features. `trees`: a sum of trees over them. `blend`: the sum of both scores, each
        standardised within the query. `stack`: a sum of features, of the linear ranker's score and
        of encoders' scores. `translation`: of words. Or the name of a baseline.
      run: the training run whose encoder the folder holds, and `seed`, which of its seeds.
      linear: the ranker on features alone, of `linear`, `blend` and `stack`; None otherwise.
      stack: of `stack`: the sum over the features and a column `run:NAME` for `linear`,
        `translation` and each encoder, standardised within the query but for `linear`, which is
        made of such; None otherwise.
      encoders: of `stack`, and of `encoder` where its head takes features: the column of each
        encoder, and its folder below this one ("." for this one).
      heads: by its column, the features that an encoder's head takes, which the encoder's own
        folder does not have; empty where heads take none, as in files of older versions.
      checkpoint: the subfolder of the sentence encoder whose cosine is a feature; "" without.
      translation: the file with the word translation; "" where nothing needs it.
      trees: the file with the trees, of `trees` and `blend`; "" otherwise, as in files of older
        versions.
      text: whether the items had further texts to learn from, without which it ranks otherwise.
      corpus: the file with the catalogue's statistics of words; "" where nothing needs them.
      column: of the baseline `current`: the column that holds the score.
      list_lengths: of what ranks by features, which compare the items of a query with each other:
        how many items the training queries have, `low` at their 5th percentile, and the `median`.
        Empty where it is not known, as in files of older versions, or does not matter.
    """

    kind: str
    run: str
    seed: int = 0
    linear: LinearRanker | None = None
    stack: LinearRanker | None = None
    encoders: Mapping[str, str] = field(default_factory=dict)
    heads: Mapping[str, LinearRanker] = field(default_factory=dict)
    checkpoint: str = ""
    translation: str = ""
    trees: str = ""
    text: bool = False
    corpus: str = ""
    column: str = ""
    list_lengths: Mapping[str, int] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Writes ranker.json into a model's folder."""
        write_json(folder / FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "Ranker":
        """Reads ranker.json; the folder's own encoder where there is none.

        Raises:
          UserError: the file cannot be read, or it lacks what its kind of ranker needs.
        """
        path = folder / FILE
        if not path.exists():
            return cls(ENCODER, run="")
        try:
            values = read_json(path)
            ranker = cls(
                **{
                    **values,
                    "linear": _linear(values["linear"]),
                    "stack": _linear(values["stack"]),
                    "heads": {
                        column: LinearRanker.from_json(head)
                        for column, head in values.get("heads", {}).items()
                    },
                }
            )
            _check_types(ranker)
            if ranker.kind not in _PARTS:
                raise ValueError(f"it has no ranker {ranker.kind!r}, only {', '.join(_PARTS)}")
            if missing := [part for part in _PARTS[ranker.kind] if not getattr(ranker, part)]:
                raise ValueError(f"{ranker.kind} without its {' and '.join(missing)}")
            for part in (LINEAR, STACK, TREES):
                if getattr(ranker, part) and part not in _PARTS[ranker.kind]:
                    raise ValueError(f"{ranker.kind} with a {part}, which it has no use for")
            known = ranker.encoders if ranker.corpus else {}
            if ranker.heads and ranker.heads.keys() != known.keys():
                raise ValueError("heads without their corpus and encoders")
            for name in (*ranker.encoders.values(), *_files(ranker)):
                place = PurePath(name)
                if place.is_absolute() or ".." in place.parts:
                    raise ValueError(f"{name} is not in this folder")
            return ranker
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{path} cannot be read ({reason}): copy the model's folder again"
            ) from None


def _check_types(ranker: Ranker) -> None:
    """Raises ValueError for a field of another type than it has to be."""
    wanted = {"seed": int, "text": bool, "encoders": dict, "list_lengths": dict}
    texts = ("kind", "run", "checkpoint", "translation", "trees", "corpus", "column")
    wanted |= dict.fromkeys(texts, str)
    for name, kind in wanted.items():
        if type(getattr(ranker, name)) is not kind:
            raise ValueError(f"{name} is {getattr(ranker, name)!r}, not of type {kind.__name__}")
    if not all(isinstance(folder, str) for folder in ranker.encoders.values()):
        raise ValueError("encoders are not names of folders")
    lengths = ranker.list_lengths
    if lengths and (lengths.keys() != {"low", "median"} or {*map(type, lengths.values())} != {int}):
        raise ValueError(f"list_lengths is {lengths!r}, not of the whole numbers low and median")


def _files(ranker: Ranker) -> tuple[str, ...]:
    return ranker.checkpoint, ranker.translation, ranker.trees, ranker.corpus


def _linear(values: Mapping[str, object] | None) -> LinearRanker | None:
    return None if values is None else LinearRanker.from_json(values)
