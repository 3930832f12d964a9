"""Trees: LightGBM's LambdaMART on features, small, and of one size for all data.

A size chosen on queries that were left out takes ten fits more and ranks no better (docs/results.md
has both).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int

from sie_jax.errors import UserError
from sie_jax.files import read_json, whole
from sie_jax.models.linear import Lists

LEAVES, TREES = 4, 200  # leaves of a tree, and trees
LONGEST = 10_000  # pairs of a query that LightGBM takes
_DEEPEST = 64  # splits above a leaf; those of `fit` have 3 at most
_CHUNK = 16_384  # pairs scored at a time; it bounds memory

Node = float | tuple[int, float, "Node", "Node"]
"""A leaf's value; or a split: the place of a feature, a threshold, the node of the pairs whose
feature is at most the threshold, and the node of the others."""


@dataclass(frozen=True)
class TreeRanker:
    """score = Σ over trees of the value of the leaf that a pair falls into: the higher, the better.

    It is a step function: where a feature comes out otherwise by rounding, as a cosine does in
    batches of another size, a pair beside a threshold may fall into another leaf.

    Attributes:
      names: of the features.
      trees: one root each.
      standardised: how the features are to be scaled, "within the query" (`data.features`).
    """

    names: tuple[str, ...]
    trees: tuple[Node, ...]
    standardised: str = "within the query"

    def scores(
        self, names: Sequence[str], features: Float[np.ndarray, "N F"]
    ) -> Float64[np.ndarray, "N"]:
        """The score of each pair; ValueError where the features are not those of the ranker.

        To the last bit what LightGBM gives, which is not needed here.
        """
        if tuple(names) != self.names:
            raise ValueError(f"the ranker takes the features {self.names}, not {tuple(names)}")
        return _scores(self.trees, features)

    def save(self, path: Path) -> None:
        """Writes the ranker as JSON; the numbers are exact."""
        with whole(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), allow_nan=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "TreeRanker":
        """Reads what `save` wrote; UserError where it cannot be read."""
        try:
            fields = read_json(path)
            names = tuple(fields["names"])
            if not all(isinstance(name, str) for name in names) or len({*names}) < len(names):
                raise ValueError("its names are no texts, or one occurs twice")
            trees = tuple(_node(tree, len(names)) for tree in fields["trees"])
            return cls(names, trees, fields["standardised"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{path}: the trees cannot be read ({reason}): copy the model's folder again"
            ) from None


def library() -> Any:
    """LightGBM, which `fit` needs; UserError where it cannot be loaded."""
    try:
        import lightgbm
    except (ImportError, OSError) as error:  # the second where it lacks a library of the system
        reason = " ".join(str(error).split())
        raise UserError(
            f"LightGBM, which fits one of the rankers, cannot be loaded ({reason}): "
            "pip install lightgbm, and on macOS brew install libomp"
        ) from None
    return lightgbm


def fit(lists: Lists) -> tuple[Node, ...]:
    """The TREES trees that LambdaMART makes of the lists; fewer where no further split is possible.

    The gain of a pair is as given: LightGBM's grades are the places of the different gains. The
    settings are fixed: LEAVES leaves of a tree, a learning rate of 0.05, 20 pairs or more in a
    leaf, pairs of items of which one is among the first 15. Nothing is drawn, and one thread works,
    so equal lists give equal trees. The order of the rows of a query matters, as that of equal
    scores at the start.

    Queries without a positive gain are left out. A query of more than LONGEST pairs is divided into
    as few lists as possible, its rows dealt out in turns. Of fewer than 40 pairs, or where no
    feature varies, one leaf of value 0 is made, which ranks nothing.

    Raises:
      ValueError: no query has a positive gain.
      UserError: LightGBM cannot be loaded.

    Source: Burges, "From RankNet to LambdaRank to LambdaMART: an overview", 2010.
    """
    return tuple(_nodes(_boosted(lists)))


def held_out(lists: Lists, folds: Int[np.ndarray, "N"]) -> Float64[np.ndarray, "N"]:
    """The score of each pair by trees that are fitted without its fold.

    Each fold is scored by `fit` on the others. Where the others have no query of positive gain, the
    scores are 0.

    Args:
      lists: the training queries alone.
      folds: the fold of each pair, all pairs of a query in one (`data.folds.assign`).

    Raises UserError where LightGBM cannot be loaded.
    """
    scores = np.zeros(len(folds))
    for fold in np.unique(folds):
        inside = folds == fold
        training = lists.rows(~inside)
        if (training.gains > 0).any():
            scores[inside] = _scores(fit(training), lists.features[inside])
    return scores


def _dataset(lists: Lists) -> Any:
    """The lists as LightGBM reads them, binned."""
    gains = np.asarray(lists.gains, np.float64)
    distinct, query = np.unique(lists.query_index, return_inverse=True)
    kept = np.flatnonzero((np.bincount(query, gains, len(distinct)) > 0)[query])
    if not len(kept):
        raise ValueError("no query has a positive gain: there is no order to learn")
    kept = kept[np.argsort(query[kept], kind="stable")]
    lengths = np.bincount(query[kept], minlength=len(distinct))
    place = np.arange(len(kept)) - (np.cumsum(lengths) - lengths)[query[kept]]
    part = place % -(-lengths // LONGEST)[query[kept]]
    order = np.lexsort((part, query[kept]))
    kept, part = kept[order], part[order]
    starts = np.flatnonzero(np.diff(query[kept], prepend=-1) | np.diff(part, prepend=-1))
    grades = np.unique(gains, return_inverse=True)[1]
    return library().Dataset(
        np.ascontiguousarray(lists.features[kept], np.float32),
        grades[kept],
        group=np.diff(starts, append=len(kept)),
    )


def _boosted(lists: Lists) -> Any:
    """The booster of `fit`."""
    dataset, different = _dataset(lists), np.unique(np.asarray(lists.gains, np.float64))
    settings = {
        "objective": "lambdarank",
        "label_gain": (different / different[different > 0][0]).tolist(),
        "lambdarank_truncation_level": 15,
        "learning_rate": 0.05,
        "num_leaves": LEAVES,
        "min_data_in_leaf": 20,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "seed": 0,
        "verbosity": -1,
    }
    return library().train(settings, dataset, TREES, keep_training_booster=True)


def _nodes(booster: Any) -> list[Node]:
    """The trees of a booster, without what LightGBM counted in them."""

    def node(one: Mapping[str, Any]) -> Node:
        if "leaf_value" in one:
            return float(one["leaf_value"])
        # features are finite, so LightGBM learns nothing of missing ones
        assert (one["decision_type"], one["missing_type"]) == ("<=", "None")
        children = node(one["left_child"]), node(one["right_child"])
        return int(one["split_feature"]), float(one["threshold"]), *children

    return [node(tree["tree_structure"]) for tree in booster.dump_model()["tree_info"]]


def _node(value: Any, features: int, depth: int = 0) -> Node:
    """What JSON holds as a node; ValueError or TypeError where it is none."""
    if not isinstance(value, list):
        return _number(value)
    feature, threshold, low, high = value
    if type(feature) is not int or not 0 <= feature < features:
        raise ValueError(f"it splits by feature {feature!r} of {features}")
    if depth == _DEEPEST:
        raise ValueError(f"a leaf lies below more than {_DEEPEST} splits")
    children = _node(low, features, depth + 1), _node(high, features, depth + 1)
    return feature, _number(threshold), *children


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not abs(value) < math.inf:
        raise ValueError(f"{value!r:.40} is no finite number")
    return float(value)


def _scores(trees: Sequence[Node], features: np.ndarray) -> np.ndarray:
    """The score of each pair, as of a TreeRanker of these trees."""
    total = np.zeros(len(features))
    for at in range(0, len(features), _CHUNK):
        columns = np.ascontiguousarray(features[at : at + _CHUNK].T, np.float64)
        part = total[at : at + _CHUNK]
        for tree in trees:
            _add(tree, columns, np.ones(len(part), bool), part)
    return total


def _add(node: Node, columns: np.ndarray, reached: np.ndarray, total: np.ndarray) -> None:
    """Adds the leaves' values to the scores of the pairs that reach the node."""
    if isinstance(node, float):
        total[reached] += node
        return
    feature, threshold, low, high = node
    at_most = columns[feature] <= threshold
    _add(low, columns, reached & at_most, total)
    _add(high, columns, reached & ~at_most, total)
