"""The frame of the report: one HTML file that holds everything it shows and makes no request."""

import base64
import hashlib
import os
from collections.abc import Iterable, Mapping

from etils import epath
from markupsafe import Markup

from sie_jax.report.parts import ENVIRONMENT, Part


def write(
    path: str | os.PathLike[str],
    *,
    title: str,
    parts: Iterable[Part | None],
    facts: Mapping[str, str] | None = None,
    script: str = "",
) -> None:
    """Writes the page.

    Every text is data: markup in a title or a query is shown and does not run, and a content
    security policy forbids all requests, and scripts other than `script`. Equal arguments give
    equal bytes.

    Args:
        path: The HTML file to write.
        title: The heading of the page.
        parts: What the page shows, from top to bottom. A part that is None is left out, so that
            the `part` function of a section decides whether there is something to show.
        facts: What stands below the heading, by name: when the page was made, and of what.
        script: What runs below the parts: code of this package, and never a user's text.
    """
    shown = [part for part in parts if part is not None]
    html = ENVIRONMENT.get_template("frame.html").render(
        title=title,
        parts=shown,
        facts=facts or {},
        script=Markup(script),
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    epath.Path(path).write_text(html, encoding="utf-8")
