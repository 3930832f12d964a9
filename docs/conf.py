"""How Sphinx makes a site of these pages: `sphinx-build -W docs build/docs`."""

from typing import Any

from sphinx.application import Sphinx

project = html_title = "sie_jax"
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["*.ipynb"]
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
highlight_language = "none"
suppress_warnings = ["ref.python"]  # a package and its modules show some names twice


def as_written(
    _app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]
) -> None:
    """Shows a docstring as `help` does: it is plain text, with formulas and tables."""
    if any(lines):
        lines[:] = ["::", "", *("   " + line for line in lines), ""]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", as_written)
