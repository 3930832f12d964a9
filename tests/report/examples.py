"""What the tests of the report share: an example of every part, and a reader of HTML."""

import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pyarrow as pa

from sie_jax.data.schema import LabelScale
from sie_jax.report import sections
from sie_jax.report.parts import Part
from sie_jax.report.sections.queries import Duel, Item


def estimate(value: float, margin: float = 0.01) -> dict[str, float]:
    return {"value": value, "low": value - margin, "high": value + margin}


UNDEFINED: dict[str, Any] = {"value": None, "low": None, "high": None}


def metrics(difference: float = 0.0307, label: str = "exact", **further: Any) -> dict[str, Any]:
    """The content of a metrics.json whose weighted run differs from uniform by `difference`."""
    return {
        "test": {
            "random": {"ndcg@10": estimate(0.4), f"recall_{label}": estimate(0.11)},
            "uniform": {"ndcg@10": estimate(0.8095), f"recall_{label}": estimate(0.61)},
            "weighted": {"ndcg@10": estimate(0.8095 + difference), f"recall_{label}": UNDEFINED},
        },
        "difference": {
            "random": {"ndcg@10": estimate(-0.4095), f"recall_{label}": estimate(-0.5)},
            "weighted": {"ndcg@10": estimate(difference), f"recall_{label}": UNDEFINED},
        },
        "seeds": {
            "random": {"ndcg@10": [0.4], f"recall_{label}": [0.11]},
            "uniform": {"ndcg@10": [0.8023, 0.8167], f"recall_{label}": [0.6, 0.62]},
            "weighted": {"ndcg@10": [0.8401, 0.8403], f"recall_{label}": [None, None]},
        },
        "cost": {
            "uniform": {"seconds": 612.34, "examples": 28000, "forward_equivalents": 84000},
            "weighted": {"seconds": 733.9, "examples": 30800, "forward_equivalents": 95200},
        },
        "queries": {"evaluated": 41, "without_positive_gain": 3, "without_highest_grade": 2},
        **further,
    }


def choice(interval: dict[str, Any], chosen: str = "el2n keep 0.8") -> dict[str, Any]:
    """The content of a choosing.json of two rounds."""

    def row(number: int, candidate: str, mean: Any, difference: Any, outcome: str) -> Any:
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
        "outlying": 0.0,
    }


def pretraining(measure: str = "perplexity") -> dict[str, Any]:
    return {
        "steps": 1200,
        "seconds": 31.25,
        "rows": {"train": 5678, "held_out": 91, "measured": 64},
        "before": {measure: 1294.5, "pair_accuracy": 0.5},
        "after": {measure: 41.25, "pair_accuracy": 0.875},
    }


def tuning(rate: str = "2e-05") -> dict[str, Any]:
    return {
        "chosen": rate,
        "validation": {
            rate: {"ndcg@10": estimate(0.7123), "recall_exact": estimate(0.3)},
            "0.001": {"ndcg@10": estimate(0.6012), "recall_exact": estimate(0.2)},
        },
        "diverged": [10.0],
        "queries": {"evaluated": 17},
    }


def nested(run: str = "bm25", exported: str = "stack") -> dict[str, Any]:
    return {
        "folds": 3,
        "queries": 148,
        "without_positive_gain": 2,
        "ndcg@10": {run: estimate(0.65), "exported": estimate(0.7)},
        "verdict": {"beats_baseline": True, "notes": [exported, exported]},
        "exported_by_fold": [exported, "linear", exported],
    }


def group(name: str, rows: int, lift: float) -> dict[str, Any]:
    shares = {"share_of_rows": rows / 900, "share_of_weight": lift * rows / 900}
    return {"group": name, "rows": rows, "lift": lift, "score": 2.25, **shares}


def explanation(query: str, pairs: int = 3, text: str = "usb hub") -> dict[str, Any]:
    """A prediction on the pair (query, text), with `pairs` training pairs for and against it."""

    def made(sign: int) -> list[dict[str, Any]]:
        pair = {"query": text, "title": text, "label": text}
        return [pair | {"influence": sign * 0.5 / (i + 1)} for i in range(pairs)]

    shown = dict.fromkeys(("title", "label", "predicted"), text)
    return shown | {"query": query, "value": 0.125, "for": made(1), "against": made(-1)}


def duel(query: str, ours: float, theirs: float, items: int = 2, text: str = "") -> Duel:
    """A query with `items` items, whose titles are `text` or say whose they are."""
    pairs = [
        (
            Item(text or f"our {n}", text or "exact"),
            Item(text or f"their {n}", text or "irrelevant"),
        )
        for n in range(items)
    ]
    return Duel(query, ours, theirs, pairs)


def slice_row(
    grouping: str, name: str, queries: int, difference: Any, marked: bool = False
) -> dict[str, Any]:
    """A row of `evaluation.slices.compare`."""
    own = {"queries": queries, "difference": difference, "marked": marked}
    return {"grouping": grouping, "slice": name, "ours": 0.75, "theirs": 0.625, **own}


def change(text: str = "hubs") -> dict[str, Any]:
    """What `evaluation.changes.measure` says of one change."""
    return {
        "queries": 41,
        "unscored": 0,
        "ndcg@10": estimate(-0.125),
        "first_changed": 0.25,
        "kendall_tau": 0.75,
        "example": [text, "hbus"],
    }


NOISE: dict[str, Any] = {
    "train": {
        "known": 10,
        "wrong": 2,
        "by_label": [{"known": 5, "wrong": 0}, {"known": 5, "wrong": 2}],
    },
    "validation": None,
    "test": {
        "known": 4,
        "wrong": 0,
        "by_label": [{"known": 0, "wrong": 0}, {"known": 4, "wrong": 0}],
    },
}


def every_part(text: str = "usb hub") -> dict[str, Part | None]:
    """Each section's part by the section's name, with `text` wherever data can hold a text."""
    of_run = metrics(label=text)
    for name in ("test", "seeds", "difference", "cost"):
        of_run[name][text] = of_run[name]["weighted"]
    made = choice(estimate(0.02), chosen=text)
    made["contender"]["name"] = made["comparison"][0]["candidate"] = text
    of_run |= {
        "train": {text: {"ndcg@10": 0.9}},
        "cross_validation": {text: estimate(0.75)},
        "rater_disagreement": {text: estimate(0.25)},
        "device": text,
        "weights": {text: {"effective_sample_size": 0.5}},
        "choosing": made,
        "tuning": tuning(text),
        "nested": nested(text, text),
        "pretraining": pretraining(text),
        "planted_errors": {"rate": 0.25, "count": 225, "auroc": {text: 0.9123}},
    }
    lines = [
        {"run": f"{text}-0", "step": 10, "loss": 1.0},
        {"run": f"{text}-0", "step": 20, "loss": 0.5},
        {"run": "pretrain-0", "step": 10, "masked_loss": 8.0},
    ]
    table = pa.table({"label": [0, 0, 1], text: [0.5, 1.5, 2.5]})
    row = dict.fromkeys(("example_id", "query", "title", "label", "prediction"), text)
    cleaning = {
        "read": 3,
        "rejected": {text: 1},
        "kept": 2,
        "splits": {text: 2},
        "repaired": {text: 1},
    }
    found = {"ndcg@10": estimate(0.5), "recall@10": estimate(0.7)}
    recommended = {
        "test": {text: found},
        "users": {"test": 20, "items": 50},
        "groups": {text: {"about": text, "users": 5, "test": {text: found}, "shown": ["ndcg@10"]}},
        "beyond": {text: {"coverage": 0.4}},
    }
    retrieved = {
        "test": {text: found},
        "queries": {"evaluated": 20, "without_wanted_item": 1},
        "complete": True,
        "catalogue": {"items": 50},
        "unjudged": {text: 0.3},
        "weights": {text: 1.0},
        "index": {},
    }
    user = {
        "user_id": text,
        "history": [{"text": text, "falls": 0.5}, {"text": text, "falls": None}],
        "recommended": [{"text": text, "wanted": True}],
        "pushed": [{"user_id": text, "push": 0.25, "texts": [text]}],
    }
    searched = {"query": text, "lists": {text: [{"text": text, "wanted": True}]}}
    hit = {"title": text, "score": 0.5, "why": {text: 3.0, "likeness": 0.25}, "wanted": True}
    chained = {
        **retrieved,
        "complete": False,
        "test": {text: found | {"mrr@10": estimate(0.6)}},
        "plan": {"found": 50, "kept": 10, "diversity": 0.1, "ranker": text},
        "ceiling": {text: 0.9},
        "within": {text: 0.3},
        "milliseconds": {text: 1.5},
        "trials": {
            "found": {"50": {text: 0.5, "milliseconds": 1.0}},
            "kept": {"10": {text: 0.5}},
            "diversity": {"0.1": {"ndcg@10": 0.5, "within": 0.3}},
        },
    }
    talked = {
        "chats": {"test": 20, "needs": 12, "items": 50},
        "test": {text: found},
        "difference": {text: found},
        "effects": {"turns": [{"feature": text, "effect": 0.1, "chats": 12}]},
    }
    chat = {
        "turns": [[{"word": text, "kept": True}, {"word": text, "kept": False}]],
        "hits": [{"title": text, "wanted": True}],
    }
    accuracy = {"accuracy": estimate(0.9), "macro_f1": 0.9, "calibration_error": 0.1}
    told = {
        "intents": [text],
        "sentences": {"train": 20, "test": 10},
        "chosen": text,
        "test": {"words": accuracy, text: accuracy},
        "difference": {text: estimate(0.1)},
        "handed_over": {"threshold": 0.5, "answered": 0.75},
        "few": {
            "3": {
                "accuracy": {"words": estimate(0.5), text: estimate(0.6)},
                "difference": {text: estimate(0.1)},
            }
        },
        "wrong": [{"text": text, "intent": text, "predicted": text, "confidence": 0.9}],
    }
    return {
        "chain": sections.chain.part(chained, (10,)),
        "hits": sections.hits.part([{"query": text, "hits": [hit]}]),
        "chats": sections.chats.part(talked, [chat]),
        "intents": sections.intents.part(told),
        "recommendations": sections.recommendations.part(recommended, ["ndcg@10"], baselines=()),
        "users": sections.users.part(text, [user]),
        "retrieval": sections.retrieval.part(retrieved, (10,)),
        "searches": sections.searches.part([searched]),
        "verdict": sections.verdict.part(of_run, run=text),
        "nested": sections.nested.part(of_run),
        "rankers": sections.rankers.part(of_run | {"verdict": {"best_baseline": text}}),
        "contest": sections.contest.part(
            of_run | {"contest": contest(text), "verdict": {"ranker": text}}
        ),
        "queries": sections.queries.part(
            text,
            text,
            {"won": 1, "lost": 0, "equal": 0},
            [duel(text, 1.0, 0.5, text=text)],
            [],
        ),
        "comparison": sections.comparison.part(
            {
                "ranker": text,
                "queries": of_run["queries"],
                "test": {text: {"ndcg@10": estimate(0.5)}},
                "difference": {text: {"ndcg@10": estimate(0.1)}},
            }
        ),
        "slices": sections.slices.part(text, text, [slice_row(text, text, 12, estimate(0.1))]),
        "robustness": sections.robustness.part(text, {text: change(text)}),
        "confusion": sections.confusion.part({text: np.eye(2, dtype=int)}, [text, "exact"]),
        "calibration": sections.calibration.part(
            {text: [[{"predicted": 0.1, "observed": 0.2, "pairs": 2}]]}
        ),
        "noise": sections.noise.part(NOISE, [text, "exact"]),
        "results": sections.results.part(of_run, LabelScale((text, "exact"), (0.0, 1.0)), run=text),
        "overfitting": sections.overfitting.part(of_run),
        "cross_validation": sections.cross_validation.part(of_run),
        "cost": sections.cost.part(of_run),
        "weights": sections.weights.part(of_run),
        "choosing": sections.choosing.part(of_run),
        "tuning": sections.tuning.part(of_run),
        "pretraining": sections.pretraining.part(of_run, lines),
        "training": sections.training.part(of_run, lines),
        "scores": sections.scores.part(of_run, table, scores=[text], label_names=[text, "exact"]),
        "groups": sections.groups.part({text: pa.Table.from_pylist([group(text, 12, 1.5)])}),
        "suspicious": sections.suspicious.part(
            [row | {"score": "1.5", "reason": text}], audited(text)
        ),
        "explanations": sections.explanations.part([explanation(text, text=text)]),
        "cleaning": sections.cleaning.part(cleaning),
        "settings": sections.settings.part({text: text}, {}),
    }


def audited(label: str) -> dict[str, Any]:
    """audit.json of a run with this label and another."""
    number = {"value": 3.0, "low": 2.0, "high": 5.0}
    return {
        "pairs": 40,
        "wrong": number,
        "noise_matrix": {label: {label: 20.0, "I": 1.0}, "I": {label: 2.0, "I": 17.0}},
        "first": [{"rows": 4, "wrong": {"value": 0.5, "low": 0.25, "high": 0.75}}],
        "notes": ["a note"],
    }


def contest(*rankers: str) -> dict[str, Any]:
    """`contest` of metrics.json."""
    standing = {"value": 0.75, "difference": 0.05, "standard_error": 0.0125}
    return {
        "on": "validation queries",
        "queries": 1200,
        "few": False,
        "standings": dict.fromkeys(rankers, standing),
    }


class Elements(HTMLParser):
    """Every element with its attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(str(html))  # a slice of Markup would be Markup, which escapes what is added

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data


def words(html: str) -> str:
    """The text with single spaces."""
    return " ".join(Elements(html).text.split())


def rows_of(part: Part | None) -> list[list[str]]:
    """The cells' texts of every table row of a part."""
    assert part
    rows = re.findall(r"<tr.*?</tr>", part.html, re.S)
    return [[words(cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.S)] for row in rows]
