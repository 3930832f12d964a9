"""What an audit says of all labels together: how many are wrong, and what its list is worth."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sie_jax.evaluation import label_errors
from sie_jax.evaluation.label_errors import Errors

UNSEEN, LEARNED, FOREIGN = ", which never saw this query,", ", which learned from this label,", ""
"""How a model knows the pairs that it judges, in words behind "the model"."""
SHARES = (0.01, 0.02, 0.05, 0.1)
FEWEST_QUERIES = 30
"""Of how many queries a bootstrap makes an interval."""


def estimated(
    probabilities: np.ndarray,
    labels: np.ndarray,
    query: np.ndarray,
    knows: str,
    *,
    resamples: int,
    seed: int,
) -> Errors | None:
    """`label_errors.estimate`; None where the queries are too few, or the model learned the labels.

    A model that learned from wrong labels agrees with them, so it would find too few.
    """
    if knows == LEARNED or len(np.unique(query)) < FEWEST_QUERIES:
        return None
    return label_errors.estimate(probabilities, labels, query, resamples=resamples, seed=seed)


def summary(
    names: Sequence[str], labels: np.ndarray, errors: Errors | None, knows: str
) -> dict[str, Any]:
    """How many labels are wrong, of all and of each, as JSON values; `notes` are for the reader.

    Where the model is not sure enough (`Errors.sure`), `wrong` has no value and no lower bound.
    `noise_matrix` is by the label that pairs have and that they should have.
    """
    if errors is None:
        note = (
            "the model learned from these labels, so it cannot tell how many are wrong: set "
            "train.folds=5 for models that have not seen them"
            if knows == LEARNED
            else f"there are fewer than {FEWEST_QUERIES} queries: too few to tell how many labels "
            "are wrong"
        )
        return {"wrong": None, "estimates": None, "noise_matrix": None, "notes": [note]}
    notes = []
    above = errors.above_majority["low"]
    if above is None or above <= 0:
        notes.append(
            "the model agrees with the labels no more often than the most frequent label does: "
            "this list is no better than a random one, so give a better model or more data"
        )
    wrong = errors.wrong
    if errors.sure < label_errors.SURE:
        wrong = {"value": None, "low": 0.0, "high": errors.wrong["high"]}
        notes.append(
            "the model is unsure of too many pairs to tell wrong labels from hard ones: far fewer "
            "may be wrong"
        )
    return {
        "wrong": wrong,
        "estimates": {"anchors": errors.anchors, "confident_joint": errors.confident_joint},
        "noise_matrix": {
            given: dict(zip(names, map(float, row), strict=True))
            for given, row in zip(names, errors.matrix, strict=True)
        },
        "above_majority": errors.above_majority,
        "sure": errors.sure,
        "notes": notes,
    }


def first(
    conflicts: np.ndarray, order: np.ndarray, errors: Errors | None, top: int | None
) -> list[dict[str, Any]]:
    """The expected share of wrong labels among the first rows of the list, at some lengths.

    The lengths are SHARES of all rows, and `top`. Each has `{"rows", "wrong"}`, the latter as
    `{"value", "low", "high"}` with the lower and the higher of the two estimates for bounds. Where
    the model is not sure enough, there is no value and no lower bound, as in `summary`.

    conflicts: of each row with a contradicted label, the chance that it is wrong; they come first.
    order: the places of the other rows.
    """
    if errors is None:
        return []
    number = len(conflicts) + len(order)
    lengths = {int(share * number) for share in SHARES} | {min(top or number, number)}
    columns = np.stack([errors.probability, *errors.between], 1)[order]
    columns = np.concatenate([np.repeat(conflicts[:, None], 3, 1).reshape(-1, 3), columns])
    means = np.cumsum(columns, 0) / np.arange(1, number + 1)[:, None]
    unsure = errors.sure < label_errors.SURE
    return [
        {
            "rows": rows,
            "wrong": {
                "value": None if unsure else float(means[rows - 1, 0]),
                "low": 0.0 if unsure else float(means[rows - 1].min()),
                "high": float(means[rows - 1].max()),
            },
        }
        for rows in sorted(lengths - {0})
    ]


def sentences(found: Mapping[str, Any]) -> list[str]:
    """The summary in a few sentences, for a terminal or a page."""
    said = []
    if (wrong := found["wrong"]) is not None:
        of = f"of {found['pairs']:,} labels"
        if wrong["value"] is None:
            said.append(f"at most {wrong['high']:,.0f} {of} are wrong")
        else:
            said.append(
                f"about {wrong['value']:,.0f} {of} are wrong, between {wrong['low']:,.0f} and "
                f"{wrong['high']:,.0f}"
            )
            shares = ", ".join(
                f"{100 * one['wrong']['value']:.0f} % of the first {one['rows']:,}"
                for one in found["first"][:4]
            )
            said.append(f"expected to be wrong: {shares}")
    return [*said, *found["notes"]]
