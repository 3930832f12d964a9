"""Plots as inline SVG, whose colours come from the CSS of the page."""

import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from io import StringIO

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# Okabe and Ito's colours, which colour-blind readers can tell apart. They become CSS variables
# (`--series-0`, …), so that the page can lighten them on a dark background.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_LINES = ("solid", "dashed", "dashdot", "dotted")
_MARKS = ("o", "s", "D", "^")
_INK = "#010203"  # is replaced by the colour of the text around the plot
_WIDTH = 4.6  # inches; this is narrow, so that the text is readable at the width of a phone
_MOST_POINTS = 200
_LONGEST_NAME = 32
_BINS = 32
_STYLE = {
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "svg.fonttype": "none",  # text that can be searched and that takes the page's font
    "svg.hashsalt": "sie_jax",  # without it, ids are random and equal input gives unequal text
    "text.color": _INK,
    "text.parse_math": False,  # without it, a dollar sign in a name would start a formula
    "xtick.color": _INK,
    "ytick.color": _INK,
}

Curve = tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]


@matplotlib.rc_context(_STYLE)
def lines(
    curves: Mapping[str, Sequence[Curve]], *, x_label: str, y_label: str, diagonal: bool = False
) -> Markup:
    """Draws one line per curve (a seed), in one colour per name.

    A curve of more than 200 points is drawn as the means of 200 groups of neighbours. Points that
    are not finite leave a gap.

    Args:
        curves: (x, y) of every seed, by name.
        x_label, y_label: Axis titles.
        diagonal: Whether to draw the line on which y equals x, across all points, and a mark at
            every point of a curve.

    Returns:
        An `<svg>` element, in which matplotlib has escaped the names.
    """
    figure, axes = _figure(height=2.7)
    handles, names = [], []
    for n, (name, seeds) in enumerate(curves.items()):
        for seed, (x, y) in enumerate(seeds):
            (line,) = axes.plot(
                *_thinned(np.asarray(x, float), np.asarray(y, float)),
                color=SERIES[n % len(SERIES)],
                linestyle=_LINES[n % len(_LINES)],
                linewidth=1.4,
                alpha=1 if len(seeds) == 1 else 0.7,
                marker="." if diagonal or len(x) == 1 else None,
            )
            if not seed:
                handles.append(line)
                names.append(_short(name))
    _legend(figure, handles, names)
    if diagonal:
        ends = [
            np.asarray(one, float) for each in curves.values() for curve in each for one in curve
        ]
        everything = np.concatenate([np.empty(0), *ends])
        span = [everything.min(), everything.max()] if everything.size else [0.0, 1.0]
        axes.plot(span, span, color=_INK, linewidth=0.8, linestyle="dashed", alpha=0.6)
    axes.set(xlabel=_short(x_label), ylabel=_short(y_label))
    axes.grid(axis="y", color=_INK, alpha=0.12, linewidth=0.6)
    return _svg(figure)


@matplotlib.rc_context(_STYLE)
def histograms(values: Mapping[str, np.ndarray], *, x_label: str) -> Markup:
    """Draws one histogram per name on a shared axis, one above the other from the bottom.

    The heights are shares of a name's own values on one scale, so that names with unequally many
    values can be compared. A tick marks each median. The axis spans the 0.5 to 99.5 % quantiles of
    all values together. Values beyond it count in the end bins, and values that are not finite are
    left out.

    Args:
        values: Values by name; some may be empty.
        x_label: Title of the axis.

    Returns:
        An `<svg>` element, in which matplotlib has escaped the names.
    """
    finite = {name: each[np.isfinite(each)] for name, each in values.items()}
    everything = np.concatenate([np.empty(0), *finite.values()])
    low, high = np.quantile(everything, [0.005, 0.995]) if everything.size else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    shares = {
        name: np.histogram(np.clip(each, low, high), edges)[0] / max(len(each), 1)
        for name, each in finite.items()
    }
    tallest = max((float(share.max()) for share in shares.values()), default=0.0) or 1.0

    figure, axes = _figure(height=0.7 + 0.45 * max(len(values), 1))
    for row, (name, each) in enumerate(finite.items()):
        axes.stairs(
            row + 0.85 * shares[name] / tallest,
            edges,
            baseline=row,
            fill=True,
            color=SERIES[0],
            alpha=0.75,
        )
        if each.size:
            median = float(np.clip(np.median(each), low, high))
            axes.plot([median, median], [row, row + 0.3], color=_INK, linewidth=1.4)
    axes.set_yticks(range(len(finite)), [_short(name) for name in finite])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set(xlabel=_short(x_label), xlim=(low, high), ylim=(-0.05, max(len(values), 1)))
    axes.grid(axis="y", color=_INK, alpha=0.2, linewidth=0.6)
    return _svg(figure)


@matplotlib.rc_context(_STYLE)
def intervals(
    entries: Mapping[str, Mapping[str, float | None]],
    *,
    x_label: str,
    line: float | None = 0.0,
    groups: Mapping[str, Collection[str]] | None = None,
) -> Markup:
    """Draws `{"value", "low", "high"}` by name as points with bars.

    The first name is at the top. If a bound is None, there is no bar; if the value is None, the row
    is empty.

    Args:
        entries: By name.
        x_label: Title of the axis.
        line: Where a dashed line is drawn from top to bottom; None for no line.
        groups: The names in each group, which has a colour and a mark of its own by its place.
            Without it all are one group.
    """
    figure, axes = _figure(height=0.75 + 0.27 * max(len(entries), 1))
    if line is not None:
        axes.axvline(line, color=_INK, linewidth=0.8, linestyle="dashed", alpha=0.6)
    kind_of = {name: kind for kind, own in enumerate((groups or {}).values()) for name in own}
    for row, (name, entry) in enumerate(entries.items()):
        value, low, high = entry["value"], entry["low"], entry["high"]
        kind = kind_of.get(name, 0)
        colour, marker = SERIES[kind % len(SERIES)], _MARKS[kind % len(_MARKS)]
        if low is not None and high is not None:
            axes.plot([low, high], [row, row], color=colour, linewidth=2, alpha=0.6)
        if value is not None:
            axes.plot([value], [row], color=colour, marker=marker, markersize=5)
    if groups:
        used = {_short(group): _mark(n) for n, (group, own) in enumerate(groups.items()) if own}
        _legend(figure, list(used.values()), list(used))
    _rows(axes, list(entries), x_label)
    return _svg(figure)


@matplotlib.rc_context(_STYLE)
def dumbbells(
    rows: Sequence[tuple[str, float, float]], *, names: tuple[str, str], x_label: str
) -> Markup:
    """Draws two values in each row, joined by a line; the first row is at the top.

    Args:
        rows: The row's name, which others may have too, and the two values.
        names: What the first values are of, and the second ones.
        x_label: Title of the axis.
    """
    figure, axes = _figure(height=1.0 + 0.27 * max(len(rows), 1))
    for row, (_, *values) in enumerate(rows):
        axes.plot(values, [row, row], color=_INK, linewidth=1.2, alpha=0.35)
    for kind in range(2):
        axes.plot(
            [row[1 + kind] for row in rows],
            range(len(rows)),
            color=SERIES[kind],
            marker=_MARKS[kind],
            markersize=5,
            linestyle="none",
        )
    _legend(figure, [_mark(0), _mark(1)], [_short(name) for name in names])
    _rows(axes, [name for name, *_ in rows], x_label)
    return _svg(figure)


def _mark(kind: int) -> Line2D:
    """The mark of a group, for a legend."""
    colour, marker = SERIES[kind % len(SERIES)], _MARKS[kind % len(_MARKS)]
    return Line2D([], [], color=colour, marker=marker, markersize=5, linestyle="none")


def _legend(figure: Figure, handles: Sequence[Line2D], names: Sequence[str]) -> None:
    """The names above the plot, in as many columns as there is room for."""
    if handles:
        columns = min(max(48 // max(len(name) + 6 for name in names), 1), 3)
        # The names are passed here because a line's label that begins with "_" gets no entry.
        figure.legend(handles, names, loc="outside upper left", ncols=columns)


def _rows(axes: Axes, names: Sequence[str], x_label: str) -> None:
    """Makes the y axis one of named rows, the first at the top."""
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set(xlabel=_short(x_label), ylim=(max(len(names), 1) - 0.5, -0.5))


def _figure(*, height: float):
    """A figure made without pyplot, which would keep it in a global list."""
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    return figure, axes


def _short(name: str) -> str:
    """The name on one line, cut so that it leaves room for the plot."""
    line = " ".join(name.split())
    return line if len(line) <= _LONGEST_NAME else f"{line[: _LONGEST_NAME - 1]}…"


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(x) <= _MOST_POINTS:
        return x, y
    starts = np.arange(_MOST_POINTS) * len(x) // _MOST_POINTS
    sizes = np.diff(np.append(starts, len(x)))
    return np.add.reduceat(x, starts) / sizes, np.add.reduceat(y, starts) / sizes


def _svg(figure: Figure) -> Markup:
    """The figure's `<svg>` element, without the prolog, size, namespaces and element ids."""
    text = StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with warnings.catch_warnings():
        # The reader's browser draws the text with fonts of its own.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        FigureCanvasSVG(figure).print_svg(text, metadata=no_metadata)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    view = re.search(r'viewBox="[^"]*"', svg)
    assert view
    svg = re.sub(r"<svg[^>]*>", f'<svg {view[0]} role="img">', svg, count=1)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = svg.replace(_INK, "currentColor")
    for n, colour in enumerate(SERIES):
        svg = svg.replace(colour, f"var(--series-{n}, {colour})")
    return Markup(svg)
