"""Rows that break a rule of cleaning."""

import numpy as np

from sie_jax.data.schema import ESCI_SCALE

KINDS = (
    "missing_title",
    "label_outside_scale",
    "exact_duplicate",
    "conflicting_labels",
    "html_markup",
    "control_characters",
    "title_too_long",
)
LONG_TITLE_CHARACTERS = 5000


def soil(rng: np.random.Generator, columns: dict[str, list[str | None]], rate: float) -> np.ndarray:
    """Gives about a share `rate` of the rows one defect of KINDS each, in place.

    A duplicate or a conflict is a further row at the end. Returns for every row the place of the
    clean row that it was made from.
    """
    rows = len(columns["query"])
    origin = list(range(rows))
    kinds = rng.integers(len(KINDS), size=rows)
    for row in np.flatnonzero(rng.random(rows) < rate).tolist():
        kind = KINDS[kinds[row]]
        title = columns["title"][row] or ""
        if kind == "missing_title":
            columns["title"][row] = None if rng.random() < 0.5 else "  "
        elif kind == "label_outside_scale":
            columns["label"][row] = None if rng.random() < 0.5 else "unsure"
        elif kind == "html_markup":
            columns["title"][row] = "<b>" + title.replace(" ", "</b>&nbsp;", 1) + "<br/>"
        elif kind == "control_characters":
            columns["title"][row] = "\u200b" + title.replace(" ", "\x07 \t", 1)
        elif kind == "title_too_long":
            columns["title"][row] = (title + " ") * (LONG_TITLE_CHARACTERS // len(title) + 1)
        else:
            origin.append(row)
            for values in columns.values():
                values.append(values[row])
            if kind == "conflicting_labels":
                others = [name for name in ESCI_SCALE.names if name != columns["label"][row]]
                columns["label"][-1] = others[rng.integers(len(others))]
    return np.array(origin)
