import re

import pyarrow as pa
from report.examples import metrics, words

from sie_jax.report.sections import scores

TABLE = pa.table({"label": [0, 1, 1], "loss": [0.5, 1.5, 2.5], "el2n": [0.1, 0.2, 0.3]})
NAMES = ["irrelevant", "exact", "unused"]


def test_one_plot_for_each_score():
    part = scores.part(metrics(), TABLE, scores=["el2n", "loss"], label_names=NAMES)
    plots = re.findall(r"<svg.*?</svg>", part.html, re.S)
    assert len(plots) == 2
    for plot, score in zip(plots, ("el2n", "loss"), strict=True):
        assert {score, *NAMES} <= set(re.findall(r"<text[^>]*>([^<]*)</text>", plot))
    assert "known to be wrong" not in words(part.html)
    assert scores.part(metrics(), TABLE, scores=[], label_names=NAMES) is None


def test_how_well_scores_find_planted_errors():
    planted = {"rate": 0.25, "count": 225, "auroc": {"loss": 0.9123, "el2n": None}}
    of_run = metrics(planted_errors=planted)
    text = words(scores.part(of_run, TABLE, scores=["loss"], label_names=NAMES).html)
    assert "225 labels (25.0%) are known to be wrong." in text
    assert "loss 0.9123, el2n –." in text
