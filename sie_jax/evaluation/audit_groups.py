"""Whole groups of labels that an audit doubts: queries labelled blindly, outlying sellers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sie_jax.data.schema import ATTRIBUTE
from sie_jax.importance import doubtful

BLIND = "the labels of this query look as if they were given without a look at its items"


def blind_queries(probabilities: np.ndarray, labels: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Whether each pair `[N]` is of a query whose labels were rather given blindly than not.

    None is where so few queries are that hard ones would explain them. See
    `importance.doubtful.blind_groups`; probabilities are of a model that never saw the query.
    """
    blind = doubtful.blind_groups(probabilities, labels, query)
    if blind.share <= doubtful.DOUBTFUL:
        return np.zeros(len(labels), bool)
    found: np.ndarray = (blind.chance > 0.5)[np.unique(query, return_inverse=True)[1]]
    return found


def outlying_values(
    pairs: pa.Table, labels: np.ndarray, query: np.ndarray, names: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """By attribute the values whose labels are unlike those of the others, the farthest first.

    Of each: {"value", "rows", "label", "share", "others"}: the label whose share is farthest from
    the others', its share there and that of all other rows. See `doubtful.outlying_groups`. Rows
    without a value are no group.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for column in (name for name in pairs.column_names if name.startswith(ATTRIBUTE)):
        values = np.array([one or "" for one in pairs[column].to_pylist()])
        rows = np.flatnonzero(values != "")
        distinct, group = np.unique(values[rows], return_inverse=True)
        far = doubtful.outlying_groups(labels[rows], group, query[rows])
        for place in np.argsort(-far, kind="stable")[: int((far > doubtful.OUTLYING).sum())]:
            inside = labels[rows[group == place]]
            counts, own = (np.bincount(one, minlength=len(names)) for one in (labels, inside))
            share, others = own / own.sum(), (counts - own) / (counts - own).sum()
            label = int(np.abs(share - others).argmax())
            found.setdefault(column.removeprefix(ATTRIBUTE), []).append(
                {
                    "value": str(distinct[place]),
                    "rows": len(inside),
                    "label": names[label],
                    "share": float(share[label]),
                    "others": float(others[label]),
                }
            )
    return found


def notes(
    blind: int, queries: int, outlying: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[str]:
    """What is to be said of them; nothing where there are none.

    blind: how many of so many queries were labelled blindly.
    """
    said = []
    if blind:
        said.append(
            f"the labels of {blind:,} of {queries:,} queries look as if they were given without a "
            "look at the items, as a careless annotator's: have whole queries labelled again"
        )
    for name, values in outlying.items():
        first = values[0]
        said.append(
            f"{len(values):,} {'value' if len(values) == 1 else 'values'} of {name} "
            f"{'has' if len(values) == 1 else 'have'} labels unlike all others, most of all "
            f"“{first['value']}”: {100 * first['share']:.0f} % of its {first['rows']:,} rows are "
            f"{first['label']}, of other rows {100 * first['others']:.0f} %"
        )
    return said
