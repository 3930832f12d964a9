"""Plots are deterministic, self-contained SVG elements that take the page's colours."""

import re
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest

from sie_jax.report import plots


def draw_lines():
    steps = np.arange(5)
    return plots.lines(
        {"uniform": [(steps, steps**2), (steps, steps)], "weighted": [(steps, steps + 0.5)]},
        x_label="step",
        y_label="training loss",
    )


def draw_histograms():
    values = np.random.default_rng(0).normal(size=200)
    return plots.histograms({"irrelevant": values, "exact": values + 1}, x_label="loss")


def draw_intervals():
    return plots.intervals(
        {
            "ndcg@10": {"value": 0.1, "low": -0.1, "high": 0.2},
            "mrr": {"value": 0.1, "low": None, "high": None},
            "recall@10": {"value": None, "low": None, "high": None},
        },
        x_label="weighted minus uniform",
    )


def draw_groups():
    entry = {"value": 0.5, "low": 0.25, "high": 0.75}
    return plots.intervals(
        {"stack": entry, "bm25": entry, "random": entry},
        x_label="nDCG@10",
        line=0.5,
        groups={"ours": ["stack"], "baseline": ["bm25", "random"], "none of them": []},
    )


def draw_dumbbells():
    rows = [("usb hub", 0.25, 0.75), ("usb hub", 1.0, 0.5)]
    return plots.dumbbells(rows, names=("stack", "bm25"), x_label="nDCG@10")


def draw_diagonal():
    curve = ([0.125, 0.5], [0.25, 0.75])
    return plots.lines({"uniform": [curve]}, x_label="a", y_label="b", diagonal=True)


DRAWINGS = pytest.mark.parametrize(
    "draw",
    [draw_lines, draw_histograms, draw_intervals, draw_groups, draw_dumbbells, draw_diagonal],
)


@DRAWINGS
def test_equal_input_gives_equal_text_and_leaves_no_settings_behind(draw):
    before = {name: matplotlib.rcParams[name] for name in plots._STYLE}
    first = draw()
    draw_histograms()
    assert draw() == first
    assert {name: matplotlib.rcParams[name] for name in plots._STYLE} == before


@DRAWINGS
def test_a_plot_is_one_element_without_addresses_or_sizes(draw):
    svg = draw()
    assert svg.startswith("<svg viewBox=")
    assert svg.rstrip().endswith("</svg>")
    assert "width=" not in svg.split(">")[0]
    for forbidden in ("http", "<script", "<?xml", "<metadata", "DOCTYPE"):
        assert forbidden not in svg
    root = ET.fromstring(str(svg).replace("<svg", '<svg xmlns:xlink="x"', 1))
    assert root.tag == "svg"


@DRAWINGS
def test_colours_are_left_to_the_page(draw):
    colours = set(re.findall(r"#[0-9a-f]{6}\b", draw()))
    assert colours <= set(plots.SERIES), "only as fallbacks of the page's variables"
    assert "currentColor" in draw()
    assert "var(--series-0, #0072b2)" in draw()


def test_names_are_text_that_can_be_searched():
    assert {"uniform", "weighted", "step", "training loss"} <= texts(draw_lines())
    assert {"irrelevant", "exact", "loss"} <= texts(draw_histograms())
    assert {"ndcg@10", "mrr", "recall@10", "weighted minus uniform"} <= texts(draw_intervals())


def test_groups_and_their_names_have_marks_of_their_own():
    drawn = draw_groups()
    assert {"ours", "baseline", "stack", "bm25"} <= texts(drawn)
    assert "none of them" not in texts(drawn)
    assert "var(--series-1, #d55e00)" in drawn
    # rows may have one name
    svg = draw_dumbbells()
    assert re.findall(r"<text[^>]*>([^<]*)</text>", svg).count("usb hub") == 2
    assert {"stack", "bm25"} <= texts(svg)


def test_the_dashed_line_stands_where_it_is_asked_for():
    entry = {"a": {"value": 0.5, "low": 0.0, "high": 1.0}}

    def dashed(**options):
        svg = plots.intervals(entry, x_label="x", **options)
        lines = re.findall(r'<path d="([^"]*)"[^>]*stroke-dasharray', svg)
        return [float(line.split()[1]) for line in lines]

    (zero,), (middle,), (one,) = dashed(), dashed(line=0.5), dashed(line=1.0)
    assert middle == pytest.approx((zero + one) / 2)
    assert zero < one
    assert dashed(line=None) == []


def texts(svg):
    return set(re.findall(r"<text[^>]*>([^<]*)</text>", svg))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("<b>&", "&lt;b&gt;&amp;"),
        ("$x^2", "$x^2"),
        ("_hidden", "_hidden"),
        ("关联", "关联"),
        ("exact\n match", "exact match"),
        ("long " * 20, ("long " * 20)[: plots._LONGEST_NAME - 1] + "…"),
    ],
)
def test_names_may_be_any_text(name, shown):
    for svg in (
        plots.histograms({name: np.arange(3.0)}, x_label=name),
        plots.lines({name: [([0, 1], [0, 1])]}, x_label="step", y_label=name),
    ):
        assert re.findall(r"<text[^>]*>([^<]*)</text>", svg).count(shown) == 2
    plots.lines({f"{n}{name}": [([0, 1], [0, 1])] for n in range(6)}, x_label="", y_label="")


def test_empty_and_undefined_values_are_drawn_without_complaint():
    plots.lines({}, x_label="step", y_label="loss")
    plots.lines({"uniform": [], "weighted": [([], [])]}, x_label="step", y_label="loss")
    plots.lines({"uniform": [([1], [2]), ([1, 2], [np.nan, np.inf])]}, x_label="s", y_label="l")
    plots.histograms({}, x_label="loss")
    plots.histograms({"a": np.zeros(0), "b": np.array([np.nan, np.inf])}, x_label="loss")
    plots.histograms({"a": np.ones(3)}, x_label="all equal")
    plots.intervals({}, x_label="difference")
    plots.intervals({}, x_label="difference", groups={}, line=None)
    plots.lines({}, x_label="a", y_label="b", diagonal=True)
    plots.dumbbells([], names=("a", "b"), x_label="nDCG@10")


def test_long_curves_are_drawn_as_means_of_neighbours():
    x, y = plots._thinned(np.arange(1001.0), np.arange(1001.0) * 2)
    assert len(x) == plots._MOST_POINTS
    np.testing.assert_allclose(y, 2 * x)
    assert x[0] == pytest.approx(np.mean(range(5)))
    assert np.all(np.diff(x) > 0)
    short = np.arange(10.0)
    np.testing.assert_array_equal(plots._thinned(short, short)[0], short)
