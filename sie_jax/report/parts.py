"""A part of the page: its heading, and its HTML from a template that escapes every text."""

from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from sie_jax.report import formats

ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("sie_jax.report", "."),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters |= {
    "bounds": formats.bounds,
    "seconds": formats.seconds,
    "signed": formats.signed,
    "value": formats.value,
    "whole": formats.whole,
}
_MACROS = ENVIRONMENT.get_template("macros.html").module
ENVIRONMENT.globals |= {
    name: getattr(_MACROS, name) for name in ("table", "metric_table", "figures")
}


class Part(NamedTuple):
    """What the frame of the page shows as one section.

    id: The element's id, by which a link finds the part.
    title: The heading; a part whose title is "" has none.
    html: The rest. A plain string would be shown as text, with its markup escaped.
    """

    id: str
    title: str
    html: Markup


def render(template: str, **data: Any) -> Markup:
    """The HTML of a Jinja template in which every value of `data` is text, unless it is Markup.

    The template may call the macros of macros.html and use the filters of formats.py.
    """
    return Markup(ENVIRONMENT.from_string(template).render(data))
