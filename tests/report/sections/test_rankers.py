import re

from report.examples import UNDEFINED, metrics

from sie_jax.report.sections import rankers


def names(part):
    """The rows' names, the first at the top."""
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", part.html)
    return [text for text in texts if text in ("random", "uniform", "weighted", "linear")]


def test_the_highest_run_stands_at_the_top_and_the_best_baseline_is_the_line():
    of_run = metrics(verdict={"best_baseline": "random", "ranker": "weighted"})
    part = rankers.part(of_run)
    assert names(part) == ["weighted", "uniform", "random"]
    assert "The dashed line is the best baseline, random (0.4000)." in part.html
    assert ">baseline</text>" in part.html
    assert ">trained here</text>" in part.html
    without = rankers.part(metrics())
    assert "dashed" not in without.html


def test_a_run_without_a_value_is_at_the_bottom_and_one_without_the_metric_is_not_shown():
    of_run = metrics()
    of_run["test"]["weighted"]["ndcg@10"] = UNDEFINED
    assert names(rankers.part(of_run)) == ["uniform", "random", "weighted"]
    for of in of_run["test"].values():
        del of["ndcg@10"]
    assert rankers.part(of_run) is None


def test_a_best_baseline_that_is_undefined_draws_no_line():
    of_run = metrics(verdict={"best_baseline": "random", "ranker": "weighted"})
    of_run["test"]["random"]["ndcg@10"] = UNDEFINED
    assert "dashed line" not in rankers.part(of_run).html
