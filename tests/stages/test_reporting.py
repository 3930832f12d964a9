"""Reporting: what the page shows of a whole run."""

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import workdirs
from report.examples import words
from sklearn.metrics import confusion_matrix
from tiny_runs import tiny

from sie_jax.config import Config, as_json
from sie_jax.data import preparing
from sie_jax.files import read_json
from sie_jax.sections import flat
from sie_jax.training.progress import duration


@pytest.fixture(scope="module")
def page(finished: Path) -> str:
    return (finished / "report.html").read_text(encoding="utf-8")


def section(page: str, name: str) -> str:
    """The HTML of one section."""
    found = re.search(rf'<section id="{name}">.*?</section>', page, re.DOTALL)
    assert found, name
    return found[0]


def test_the_parts_that_a_reader_needs_first_stand_at_the_top(page: str) -> None:
    shown = re.findall(r'<section id="([^"]*)">', page)
    assert shown[:5] == ["verdict", "rankers", "contest", "results", "queries"]
    assert {"robustness", "confusion", "calibration", "noise"} <= set(shown)


def test_every_run_is_in_the_forest_plot(page: str, finished: Path) -> None:
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", section(page, "rankers"))
    assert read_json(finished / "metrics.json")["test"].keys() <= set(texts)


def test_the_confusion_matrix_is_that_of_the_test_pairs(page: str, finished: Path) -> None:
    prepared = preparing.load(finished)
    columns = pq.read_table(finished / "predictions" / "uniform-0.parquet").columns
    predicted = np.stack([column.to_numpy() for column in columns], 1).argmax(1)
    labels, grades = prepared.split("test")["label"].to_numpy(), [3, 2, 1, 0]
    shown = re.findall(r'number(?: right)?">(\d+)<small>', section(page, "confusion"))[:16]
    wanted = confusion_matrix(labels, predicted, labels=grades)
    np.testing.assert_array_equal(np.array(shown, int).reshape(4, 4), wanted)


def test_wins_and_losses_add_up_to_the_queries(page: str, finished: Path) -> None:
    numbers = re.findall(
        r"above \S+, the best baseline, on (\d+) test queries, below it on (\d+), and equal on "
        r"(\d+)",
        words(section(page, "queries")),
    )
    queries = read_json(finished / "metrics.json")["queries"]["evaluated"]
    assert sum(map(int, numbers[0])) == queries


def test_the_rates_of_wrong_labels_are_those_of_the_data(page: str, finished: Path) -> None:
    train = preparing.load(finished).split("train").to_pandas()
    wrong = int((train["label"] != train["truth"]).sum())
    assert f"{wrong} of {len(train)}" in words(section(page, "noise"))
    share = f"{100 * wrong / len(train):.1f}%"
    assert f"The training labels are noisy ({share} are wrong)" in words(
        section(page, "overfitting")
    )
    assert "the test labels are clean" in words(section(page, "overfitting"))


def test_the_settings_that_differ_come_first(page: str) -> None:
    ours, theirs = flat(as_json(tiny())), flat(as_json(Config()))
    changed = [name for name in ours if ours[name] != theirs[name]]
    before_fold = section(page, "settings").split("<details>")[0]
    assert re.findall(r'<th scope="row"><code>([^<]*)</code>', before_fold) == changed


def test_the_heading_says_when_of_what_and_how_long(page: str, finished: Path) -> None:
    found = re.search(r'<ul class="facts">.*?</ul>', page, re.DOTALL)
    assert found
    facts = words(found[0])
    assert re.search(r"made: \d{4}-\d\d-\d\d \d\d:\d\d UTC", facts)
    assert "data: synthetic" in facts
    stages = workdirs.markers(finished)
    seconds = sum(
        one["seconds"] for stage in stages for one in workdirs.costs(finished, stage).values()
    )
    assert facts.endswith(duration(seconds))


def test_no_date_is_in_any_other_file(page: str, finished: Path) -> None:
    (date,) = re.findall(r"<span>(\d{4}-\d\d-\d\d) \d\d:\d\d UTC</span>", page)
    for name in ("metrics.json", "config.json", "cleaning.json", "robustness.json"):
        assert date not in (finished / name).read_text(encoding="utf-8"), name
