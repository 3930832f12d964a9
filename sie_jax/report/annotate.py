"""The page on which people check the labels of an audit, and which writes their corrections."""

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

from markupsafe import Markup

from sie_jax.evaluation.spreadsheet import FORMULA_STARTS
from sie_jax.report import page
from sie_jax.report.parts import ENVIRONMENT, Part

MOST = 300
"""How many rows the page has where nothing else is asked for."""
SHOWN = ("rank", "found_by", "example_id", "query", "title", "label", "prediction", "reason")


def write(
    path: str | os.PathLike[str],
    rows: Iterable[Mapping[str, Any]],
    *,
    name: str,
    labels: Sequence[str],
    further: Sequence[str],
    sentences: Sequence[str],
    most: int | None = None,
) -> None:
    """Writes the page of the first rows of a list; it works from a file and makes no request.

    Every text is data, as in `page.write`. What is decided is kept in the browser's storage under a
    key of these rows, where the browser lets a page have one.

    Args:
      path: the HTML file to write.
      rows: as `evaluation.audit.Listed.rows` gives them. most: how many of them; None: MOST.
      name: what the corrections are called after.
      labels: the scale, lowest grade first.
      further: the names of columns to show beside query and title.
      sentences: what the audit says of all labels together.
    """
    shown = [
        {
            **{column: row[column] for column in SHOWN},
            "further": [
                [column, row[column]] for column in dict.fromkeys([*further, "text"]) if row[column]
            ],
        }
        for row in itertools.islice(rows, MOST if most is None else most)
    ]
    data = {"name": name, "labels": list(labels), "rows": shown, "starts": FORMULA_STARTS}
    data["key"] = hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]
    html = ENVIRONMENT.get_template("annotate.html").render(data=data, sentences=sentences)
    page.write(
        path,
        title=f"Labels to check: {name}",
        parts=[Part("check", "", Markup(html))],
        script=(resources.files("sie_jax.report") / "annotate.js").read_text(encoding="utf-8"),
    )
