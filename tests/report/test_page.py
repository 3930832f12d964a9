"""The report shows the numbers it is given, runs no text it is given, and asks for nothing."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from sie_jax.importance import choosing, planning
from sie_jax.report import page

ATTACK = '<script>alert("x")</script><img src=http://example.org/x onerror=alert(1)> & "'


def estimate(value, margin=0.01):
    return {"value": value, "low": value - margin, "high": value + margin}


def example_metrics(difference=0.0307):
    return {
        "rows": {"read": 1234, "kept": 1200, "rejected": 34},
        "test": {
            "random": {"ndcg@10": estimate(0.4), "recall_exact": estimate(0.11)},
            "uniform": {"ndcg@10": estimate(0.8095), "recall_exact": estimate(0.61)},
            "weighted": {
                "ndcg@10": estimate(0.8095 + difference),
                "recall_exact": {"value": None, "low": None, "high": None},
            },
        },
        "difference": {
            "random": {"ndcg@10": estimate(-0.4095), "recall_exact": estimate(-0.5)},
            "weighted": {
                "ndcg@10": estimate(difference),
                "recall_exact": {"value": None, "low": None, "high": None},
            },
        },
        "seeds": {
            "random": {"ndcg@10": [0.4], "recall_exact": [0.11]},
            "uniform": {"ndcg@10": [0.8023, 0.8167], "recall_exact": [0.6, 0.62]},
            "weighted": {"ndcg@10": [0.8401, 0.8403], "recall_exact": [None, None]},
        },
        "cost": {
            "uniform": {"seconds": 612.34, "examples": 28000, "forward_equivalents": 84000},
            "weighted": {"seconds": 733.9, "examples": 30800, "forward_equivalents": 95200},
        },
        "queries": {"evaluated": 41, "without_positive_gain": 3, "without_highest_grade": 2},
    }


def group(name, rows, lift):
    shares = {"share_of_rows": rows / 900, "share_of_weight": lift * rows / 900}
    return {"group": name, "rows": rows, "lift": lift, "score": 2.25, **shares}


def write(path, **changes):
    arguments = {
        "title": "sie_jax: quickstart",
        "metrics": example_metrics(),
        "cleaning": {
            "read": 1234,
            "rejected": {"missing_title": 0, "exact_duplicate": 34},
            "kept": 1200,
            "splits": {"train": 900, "validation": 100, "test": 200},
            "repaired": {"html_markup": 17, "whitespace": 0},
        },
        "curves": {
            "training loss": {"uniform": [([1, 2], [0.9, 0.8])], "weighted": [([1, 2], [0.7, 0.6])]}
        },
        "pretraining_curves": {"held-out perplexity": {"pretrain": [([100, 200], [90.0, 41.0])]}},
        "scores_by_label": {
            "gradient_norm": {"irrelevant": np.arange(9.0), "exact": np.arange(9.0) / 2}
        },
        "suspicious": [
            {
                "example_id": "e7",
                "query": "usb cable",
                "title": "Phone case",
                "label": "exact",
                "opinion": "irrelevant",
                "score": 9.87654,
            }
        ],
        "groups": {
            "brand": [
                group("Acme", 12, 1.5),
                group("", 5, 0.75),
                group("rare", 4, 0.5),
            ]
        },
        "settings": {"seed": 3, "train": {"batch_size": 16, "extra": {}}},
    }
    page.write(path, **(arguments | changes))
    return path.read_text("utf-8")


class Elements(HTMLParser):
    """Every element with its attributes, and the text of the page."""

    def __init__(self, html):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def rows_of(html, section):
    """The cells' texts of every table row in a section."""
    body = re.search(rf'<section id="{section}">.*?</section>', html, re.S)[0]
    rows = re.findall(r"<tr.*?</tr>", body, re.S)
    return [
        [" ".join(Elements(cell).text.split()) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        for row in rows
    ]


def test_sections_hold_the_numbers_given(tmp_path):
    html = write(tmp_path / "report.html")
    results = rows_of(html, "results")
    # Runs that were trained stand before the baseline.
    assert results[0] == ["metric", "uniform", "weighted", "random"]
    tested = ["0.80950.7995 to 0.8195", "0.84020.8302 to 0.8502", "0.40000.3900 to 0.4100"]
    assert ["ndcg@10", *tested] in results
    differences = ["+0.0307+0.0207 to +0.0407", "−0.4095−0.4195 to −0.3995"]
    assert ["ndcg@10", *differences] in results
    by_label = ["0.61000.6000 to 0.6200", "–no interval", "0.11000.1000 to 0.1200"]
    assert ["recall_exact", *by_label] in results
    assert ["uniform", "2", "0.8167"] in results
    assert "nDCG is over 41 queries; 3 without any gain are left out" in html
    assert ["weighted", "733.9", "30,800", "95,200"] in rows_of(html, "cost")
    assert rows_of(html, "suspicious")[1:] == [
        ["1", "usb cable", "Phone case", "exact", "irrelevant", "9.8765"]
    ]
    cleaning = rows_of(html, "cleaning")
    assert [row[:2] for row in cleaning[1:]] == [
        ["read", "1,234"],
        ["− missing_title", "0"],
        ["− exact_duplicate", "34"],
        ["kept", "1,200"],
        ["train", "900"],
        ["validation", "100"],
        ["test", "200"],
    ]
    assert "html_markup 17, whitespace 0." in html
    assert rows_of(html, "settings") == [
        ["seed", "3"],
        ["train.batch_size", "16"],
        ["train.extra", "{}"],
    ]
    assert html.count("<svg") == 3  # differences, training loss, gradient norm


def test_optional_parts_of_the_metrics_are_shown(tmp_path):
    planted = {"rate": 0.25, "count": 225, "auroc": {"gradient_norm": 0.9123}}
    metrics = example_metrics() | {"device": "2 x TPU", "planted_errors": planted}
    html = write(tmp_path / "report.html", metrics=metrics)
    assert "Measured on 2 x TPU." in html
    assert "225 labels (25.0%) are known to be wrong" in html
    assert "gradient_norm 0.9123." in html


@pytest.mark.parametrize(
    ("difference", "kind", "words"),
    [
        (0.0307, "helped", "Weighting helped:"),
        (-0.0307, "hurt", "Weighting hurt:"),
        (0.0099, "unresolved", "Whether weighting helped is not resolved:"),
        (-0.0099, "unresolved", "Whether weighting helped is not resolved:"),
        (0.01, "unresolved", "Whether weighting helped is not resolved:"),  # touches zero
    ],
)
def test_verdict_follows_the_interval(difference, kind, words):
    metrics = example_metrics(difference)
    found = page.verdict(metrics, run="weighted", reference="uniform", metric="ndcg@10")
    assert found[:2] == (kind, words)
    signed = f"{difference:+.4f}".replace("-", "−")
    after = f"{0.8095 + difference:.4f}"
    assert f"went from 0.8095 (uniform) to {after} (weighted), by {signed}, " in found[2]
    assert "mean over 2 seeds" in found[2]


def test_verdict_of_one_seed_says_that_it_is_one():
    metrics = example_metrics(0.05)
    metrics["seeds"]["weighted"] = {
        name: values[:1] for name, values in metrics["seeds"]["weighted"].items()
    }
    found = page.verdict(metrics, run="weighted", reference="uniform", metric="ndcg@10")
    assert found[:2] == ("helped", "In this one training run weighting helped:")
    assert "mean over 1 seed; one seed cannot tell weighting from luck" in found[2]


def test_verdict_without_an_interval_claims_nothing(tmp_path):
    metrics = example_metrics()
    metrics["difference"]["weighted"]["ndcg@10"] = {"value": 0.5, "low": None, "high": None}
    assert "Whether weighting helped cannot be told:" in write(tmp_path / "a.html", metrics=metrics)
    metrics["difference"] = {}
    html = write(tmp_path / "b.html", metrics=metrics)
    assert "Whether weighting helped cannot be told:" in html
    assert "No other run to compare." in html


def test_text_is_data_wherever_it_stands(tmp_path):
    metrics = example_metrics()
    for part in ("test", "seeds", "difference", "cost"):
        metrics[part][ATTACK] = metrics[part]["weighted"]
    row = dict.fromkeys(("example_id", "query", "title", "label", "opinion"), ATTACK)
    html = write(
        tmp_path / "report.html",
        title=ATTACK,
        metrics=metrics,
        curves={ATTACK: {ATTACK: [([0, 1], [0, 1])]}},
        scores_by_label={ATTACK: {ATTACK: np.arange(3.0)}},
        suspicious=[row | {"score": 1.0}],
        settings={ATTACK: ATTACK},
    )
    elements = Elements(html)
    tags = {tag for tag, _ in elements.found}
    assert not tags & {"script", "img", "iframe", "object", "link", "base", "form"}
    assert elements.text.count(ATTACK) >= 4 + 2 + 1, "it is shown as it is"


def test_page_asks_for_nothing(tmp_path):
    html = write(tmp_path / "report.html")
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    elements = Elements(html).found
    assert ("meta", {"http-equiv": "Content-Security-Policy", "content": policy}) in elements
    assert "http://" not in html
    assert "https://" not in html
    assert "@import" not in html
    for tag, attributes in elements:
        assert tag != "script"
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in ("src", "srcset", "action", "data", "poster")
            if name in ("href", "xlink:href"):
                assert value.startswith("#")
    for target in re.findall(r"url\(([^)]*)\)", html):
        assert target.startswith("#")


def test_groups_from_either_end(tmp_path):
    path = tmp_path / "report.html"
    assert rows_of(write(path), "groups") == [
        ["brand", "rows", "share of weight", "lift", "mean score"],
        ["Acme", "12", "2.00%", "1.50", "2.2500"],  # 1.5 · 12 / 900
        ["(none)", "5", "0.42%", "0.75", "2.2500"],
    ]
    many = {"query": [group(f"q{i}", 5, 2 - i / 30) for i in range(30)]}
    shown = [row[0] for row in rows_of(write(path, groups=many), "groups")[1:]]
    assert shown == [f"q{i}" for i in (*range(10), *range(29, 19, -1))]
    few = {"query": [group(f"q{i}", 5, 2 - i / 3) for i in range(3)]}
    assert [row[0] for row in rows_of(write(path, groups=few), "groups")[1:]] == ["q0", "q1", "q2"]
    assert 'id="groups"' not in write(path, groups={"query": [group("rare", 4, 2.0)]})


def test_gap_and_folds_where_there_are_any(tmp_path):
    path = tmp_path / "report.html"
    assert 'id="gap"' not in write(path)
    assert 'id="folds"' not in write(path)
    more = {
        "train": {"uniform": {"ndcg@10": 0.9095, "loss": 0.1}},
        "cross_validation": {"ndcg@10": estimate(0.75)},
        "rater_disagreement": {"loss": estimate(0.25), "el2n": estimate(-0.125)},
    }
    html = write(path, metrics=example_metrics() | more)
    assert rows_of(html, "gap")[1:] == [["uniform", "ndcg@10", "0.9095", "0.8095", "+0.1000"]]
    assert rows_of(html, "folds") == [
        ["metric", "out of fold"],
        ["ndcg@10", "0.75000.7400 to 0.7600"],
        ["score", "correlation", "95% interval"],
        ["loss", "+0.2500", "+0.2400 to +0.2600"],
        ["el2n", "−0.1250", "−0.1350 to −0.1150"],
    ]


def choosing_example(interval, chosen="el2n keep 0.8"):
    def row(number, candidate, mean, difference, outcome):
        own = {"queries": 1040, "mean": mean, "difference": difference}
        folds = [{"fold": fold, **own, "queries": 520} for fold in (2, 3)]
        place = {"round": number, "share": 0.076 * number, "candidate": candidate}
        return {**place, **own, "outcome": outcome, "folds": folds}

    return {
        "chosen": {"name": chosen, "score": "el2n", "policy": "keep", "strength": 0.8},
        "contender": {"name": "el2n keep 0.8", "score": "el2n", "policy": "keep", "strength": 0.8},
        "interval": interval,
        "comparison": [
            row(1, "uniform", 0.5, None, "reference"),
            row(1, "grad_norm clipped", 0.49, -0.01, "dropped"),
            row(1, "loss inverse", None, None, "undefined"),
            row(1, "el2n keep 0.8", 0.51, 0.01, "kept"),
            row(2, "uniform", 0.6, None, "dropped"),
            row(2, "el2n keep 0.8", 0.62, 0.02, "chosen"),
        ],
        "cost": {"budget": 2.0, "planned": 1.98, "spent": 1.7512},
    }


def test_what_was_chosen_and_all_it_was_compared_with(tmp_path):
    path = tmp_path / "report.html"
    assert 'id="choosing"' not in write(path)
    html = write(path, choosing=choosing_example(estimate(0.02)))
    rows = rows_of(html, "choosing")
    assert rows[0] == [
        *("candidate", "round", "trained", "queries"),
        *("accuracy", "difference", "outcome"),
    ]
    assert rows[1:7] == [
        ["uniform", "1", "7.6%", "1,040", "0.5000", "–", "reference"],
        ["grad_norm clipped", "1", "7.6%", "1,040", "0.4900", "−0.0100", "dropped"],
        ["loss inverse", "1", "7.6%", "1,040", "–", "–", "undefined"],
        ["el2n keep 0.8", "1", "7.6%", "1,040", "0.5100", "+0.0100", "kept"],
        ["uniform", "2", "15.2%", "1,040", "0.6000", "–", "dropped"],
        ["el2n keep 0.8", "2", "15.2%", "1,040", "0.6200", "+0.0200", "chosen"],
    ]
    assert rows[8] == ["uniform", "1", "2", "520", "0.5000", "–"]
    assert len(rows) == 7 + 1 + 12
    text = " ".join(Elements(html).text.split())
    assert "cost 1.75 full trainings" in text
    assert "; 2 were allowed." in text
    assert page.decision(choosing_example(estimate(0.02))) in text
    one_fold = choosing_example(estimate(0.02))
    for row in one_fold["comparison"]:
        row["folds"] = row["folds"][:1]
    assert len(rows_of(write(path, choosing=one_fold), "choosing")) == 7


@pytest.mark.parametrize(
    ("interval", "chosen", "words"),
    [
        (
            estimate(0.02),
            "el2n keep 0.8",
            "el2n keep 0.8 is taken, because the interval of its difference from uniform, "
            "+0.0100 to +0.0300, lies above zero.",
        ),
        (
            estimate(0.005),
            "uniform",
            "uniform is kept, because the interval of the difference of el2n keep 0.8 from it, "
            "−0.0050 to +0.0150, reaches zero.",
        ),
        (
            estimate(-0.02),
            "uniform",
            "uniform is kept, because the interval of the difference of el2n keep 0.8 from it, "
            "−0.0300 to −0.0100, lies below zero.",
        ),
        (
            {"value": 0.1, "low": None, "high": None},
            "uniform",
            "uniform is kept, because there is no interval for the difference of el2n keep 0.8 "
            "from it.",
        ),
    ],
)
def test_the_decision_follows_the_interval(interval, chosen, words):
    assert page.decision(choosing_example(interval, chosen)) == words


@pytest.mark.parametrize("number", [1, len(choosing.CANDIDATES)])
def test_a_choice_is_shown_as_it_is(tmp_path, number):
    candidates = choosing.CANDIDATES[:number]
    plan = planning.plan(number, rows=[30] * 4, costs=planning.Costs(9, 5), budget=20)
    choice = choosing.choose(
        candidates,
        lambda candidate, fold, share: np.linspace(0, share, 9) ** len(candidate.name),
        plan,
        interval=lambda differences: estimate(float(differences.mean())),
    )
    html = write(tmp_path / "report.html", choosing=choice.as_json())
    rows = rows_of(html, "choosing")[1:]
    shown = [row["candidate"] for row in choice.comparison]
    assert [row[0] for row in rows[: len(shown)]] == shown
    # the same by fold follows, where one candidate is measured on all folds
    by_fold = [row[0] for row in rows[len(shown) :]]
    assert by_fold == (["candidate", *np.repeat(shown, 4)] if number == 1 else [])
    assert page.decision(choice.as_json()) in html


def test_the_decision_where_nothing_could_be_measured(tmp_path):
    nothing = choosing_example(dict.fromkeys(("value", "low", "high")), "uniform")
    html = write(tmp_path / "report.html", choosing=nothing | {"contender": None})
    assert "uniform is kept, because no candidate could be measured." in html


def test_page_is_the_same_for_the_same_arguments(tmp_path):
    assert write(tmp_path / "a.html") == write(tmp_path / "b.html")


def test_page_of_little_has_no_empty_sections(tmp_path):
    html = write(
        tmp_path / "report.html",
        curves={"validation loss": {"uniform": [], "weighted": []}},
        scores_by_label={},
        suspicious=[],
        settings={},
        metrics=example_metrics() | {"difference": {}, "cost": {}},
    )
    assert "<svg" not in html
    assert 'id="training"' not in html
    assert 'id="scores"' not in html


def test_at_most_fifty_suspicious_labels(tmp_path):
    row = {"query": "q", "title": "t", "label": "a", "opinion": "b", "score": 1.0}
    html = write(tmp_path / "report.html", suspicious=[row] * 60)
    assert len(rows_of(html, "suspicious")) == 1 + 50


def test_pretraining_and_the_learning_rates_tried(tmp_path):
    before = write(tmp_path / "plain.html")
    assert 'id="pretraining"' not in before
    assert "held-out perplexity" not in before
    assert 'id="tuning"' not in before
    metrics = example_metrics() | {
        "pretraining": {
            "steps": 1200,
            "seconds": 31.25,
            "rows": {"train": 5678, "held_out": 91, "measured": 64},
            "before": {"perplexity": 1294.5, "pair_accuracy": 0.5},
            "after": {"perplexity": 41.25, "pair_accuracy": 0.875},
        },
        "tuning": {
            "chosen": 2e-05,
            "validation": {
                "2e-05": {"ndcg@10": estimate(0.7123), "recall_exact": estimate(0.3)},
                "0.001": {"ndcg@10": estimate(0.6012), "recall_exact": estimate(0.2)},
            },
            "diverged": [10.0],
            "queries": {"evaluated": 17},
        },
    }
    text = re.sub(r"<[^>]*>|\s+", " ", write(tmp_path / "report.html", metrics=metrics))
    for shown in (
        "1,294.5000",
        "41.2500",
        "0.8750",
        "1,200 steps",
        "5,678",
        "31.2 seconds",
        "64 of the 91 texts",
    ):
        assert shown.replace("1,294.5000", "1294.5000") in text, shown
    assert "held-out perplexity" in text
    for shown in ("17 validation", "2e-05", "0.7123", "0.6012", "no longer finite: 10.0"):
        assert shown in text, shown


def explanation(query, pairs=3, text="usb hub"):
    def made(sign):
        pair = {"query": text, "title": text, "label": text}
        return [pair | {"influence": sign * 0.5 / (i + 1)} for i in range(pairs)]

    shown = dict.fromkeys(("title", "label", "predicted"), text)
    return shown | {"query": query, "value": 0.125, "for": made(1), "against": made(-1)}


def test_worst_queries_are_explained(tmp_path):
    path = tmp_path / "report.html"
    assert 'id="explanations"' not in write(path)
    assert 'id="explanations"' not in write(path, explanations=[])
    html = write(path, explanations=[explanation("usb cable", pairs=4)])
    pair = ["usb hub"] * 3
    assert rows_of(html, "explanations")[1:] == [
        ["for", *pair, "+0.5000"],
        ["for", *pair, "+0.2500"],
        ["for", *pair, "+0.1667"],
        ["against", *pair, "−0.5000"],
        ["against", *pair, "−0.2500"],
        ["against", *pair, "−0.1667"],
    ]
    text = " ".join(Elements(html).text.split())
    assert "usb cable · ndcg@10 0.1250" in text
    assert "predicted usb hub, labelled usb hub" in text
    # a pair that nothing speaks against, and no more than ten queries
    many = [explanation(f"q{i}") | {"against": []} for i in range(12)]
    html = write(path, explanations=many)
    assert len(rows_of(html, "explanations")) == 10 * (1 + 3)
    assert "q9 ·" in html.replace("</bdi>", "")
    assert "q10 ·" not in html.replace("</bdi>", "")


def test_explanations_are_data(tmp_path):
    html = write(tmp_path / "report.html", explanations=[explanation(ATTACK, pairs=1, text=ATTACK)])
    elements = Elements(html)
    assert not {tag for tag, _ in elements.found} & {"script", "img"}
    # query, three of the pair explained, three of each training pair
    assert elements.text.count(ATTACK) == 1 + 3 + 2 * 3
