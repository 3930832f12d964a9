"""Tables on what an audit finds, what it says of all labels, and what corrections gain."""

from collections.abc import Callable
from typing import Any

from page_tables import mean, number, result, rows_as_table, with_interval

from sie_jax.evaluation import label_errors

Cell = dict[str, Any]


def audit() -> str:
    """The share of wrong labels among the first of the list, by what it is ranked by."""
    rankings = {
        "audit.csv": "the label's own probability, as in `audit.csv`",
        "cleanlab, self_confidence": "cleanlab, self-confidence",
        "cleanlab, normalized_margin": "cleanlab, normalised margin",
        "cleanlab, confidence_weighted_entropy": "cleanlab, confidence-weighted entropy",
        "el2n": "EL2N",
        "margin": "margin",
        "grad_norm": "gradient norm",
        "entropy": "entropy",
    }
    columns = ("1%", "2%", "5%", "10%", "auroc")
    found = result("audit")["encoder"]["rankings"]
    rows = [
        [text, *(number(found[name][column]["mean"]) for column in columns)]
        for name, text in rankings.items()
    ]
    head = [column.replace("%", " %").replace("auroc", "AUROC") for column in columns]
    return rows_as_table(["ranked by", *head], rows)


def estimates() -> str:
    """The share of wrong labels, as it is, as an audit says it, and by each estimate alone."""
    rows = []
    for name, several in _cells().items():
        firm = all(map(_is_firm, several))
        bounds = [label_errors.ends(one["anchors"], one["confident_joint"]) for one in several]
        low, high = (
            mean([ends[end] / one["pairs"] for ends, one in zip(bounds, several, strict=True)])
            for end in (0, 1)
        )
        value = mean([one["estimate"] / one["pairs"] for one in several])
        held = [_held(one) for one in several]
        alone = [
            mean([one["anchors"]["value"] / one["pairs"] for one in several]),
            *(mean([one[key] / one["pairs"] for one in several]) for key in ("cleanlab", "sum")),
        ]
        rows.append(
            [
                name,
                _percent(mean([one["wrong"] / one["pairs"] for one in several])),
                f"{_percent(value)} [{_percent(low)}, {_percent(high)}]"
                if firm
                else f"at most {_percent(high)}",
                f"{sum(held)} of {len(held)}",
                *map(_percent, alone),
                *(_percent(mean([one[key] for one in several])) for key in ("sure", "accuracy")),
            ]
        )
    head = ["shop, wrong labels", "true", "what is said", "right"]
    head += ["anchors", "confident joint", "sum of 1 − p_y", "`sure`", "accuracy"]
    return rows_as_table(head, rows)


def precision() -> str:
    """The share of wrong labels among the first rows, by each score, and as expected."""
    shares = ("1%", "2%", "5%", "10%")
    rows = []
    for name, several in _cells().items():
        if not any(one["wrong"] for one in several):
            continue
        columns = [
            [mean([one["precision"][score][share] for one in several]) for share in shares]
            for score in label_errors.SCORES
        ]
        columns.append([mean([one["expected"][share][0] for one in several]) for share in shares])
        rows.append([name, *(" · ".join(number(one, 2) for one in column) for column in columns)])
    head = ["self-confidence", "normalised margin", "confidence-weighted entropy", "expected"]
    return rows_as_table(["shop, wrong labels", *head], rows)


def coverage() -> str:
    """How often what is said of further shops holds."""
    cells = result("audit")["coverage"]
    groups: dict[str, list[Cell]] = {}
    for one in sorted(cells, key=lambda one: (one["kind"], one["noise"])):
        groups.setdefault(f"{100 * one['noise']:.0f} % {one['kind']}", []).append(one)
    rows = []
    for name, several in (*groups.items(), ("all", cells)):
        firm = [one for one in several if _is_firm(one)]
        vague = [one for one in several if not _is_firm(one)]
        plain = [one for one in firm if _least(one) <= one["wrong"] and _held(one)]
        held = [list(filter(_held, some)) for some in (firm, vague)]
        counts = (several, firm, held[0], plain, vague, held[1])
        rows.append([name, *(str(len(one)) for one in counts)])
    head = ["wrong labels", "shops", "an interval is said", "it holds the true number"]
    head += ["it would with the lower end of the bootstrap", "“at most” is said", "it is true"]
    return rows_as_table(head, rows)


def round_trip() -> str:
    """What correcting a twentieth of the labels gains."""
    return _trips(result("audit")["round_trip"])


def few_queries() -> str:
    """The same with few queries to learn from."""
    found = result("audit")["few_queries"]
    return _trips({f"{100 * one['noise']:.0f} % {kind}": one for kind, one in found.items()})


def commits() -> str:
    """At which version each part of the results was measured."""
    found = [f"`{name}` at {commit}" for name, commit in result("audit")["commits"].items()]
    return f"The parts of `audit.json` were measured at these commits: {', '.join(found)}."


def _trips(measured: dict[str, Any]) -> str:
    names = {
        "self_confidence": "the first by self-confidence",
        "normalized_margin": "by normalised margin",
        "confidence_weighted_entropy": "by confidence-weighted entropy",
        "queries": "whole queries, by mean self-confidence",
        "random": "random ones",
        "random queries": "whole queries, at random",
        "all": "all",
    }
    rows = []
    for shop, found in measured.items():
        for name, text in names.items():
            if name not in found:
                continue
            one = found[name]
            row = [shop, text, "", with_interval(one["gain"], sign=True), "", ""]
            if name != "all":
                row[2] = f"{one['changed']:.0f} of {found['labels']:.0f}"
                row[4] = _thousandths(one["per_100"])
                row[5] = "" if name == "random" else _thousandths(one["per_100_less_random"])
            rows.append(row)
    head = ["shop", "corrected", "were wrong", "gain in nDCG@10"]
    return rows_as_table([*head, "per 100 labels, in 0.001", "less that of random ones"], rows)


def _is_firm(one: Cell) -> bool:
    """Whether an interval is said, and not "at most"."""
    return bool(one["sure"] >= label_errors.SURE)


def _least(one: Cell) -> float:
    """The lower end that the bootstrap gives."""
    return float(min(one[by]["low"] for by in ("anchors", "confident_joint")))


def _held(one: Cell) -> bool:
    """Whether what is said is true."""
    low, high = label_errors.ends(one["anchors"], one["confident_joint"])
    return bool((low <= one["wrong"] or not _is_firm(one)) and one["wrong"] <= high)


def _cells() -> dict[str, list[Cell]]:
    """What was measured by shop, noise and model, each of all seeds."""
    audited = result("audit")
    views = {"words": ", of shared words alone", "nothing": ", of a model that knows nothing"}
    found: dict[str, list[Cell]] = {}
    for one in [*audited["cells"], *audited["weak"]]:
        noise = f"{100 * one['noise']:.0f} % {one['kind']}" if one["noise"] else "none"
        found.setdefault(f"{one['shop']}, {noise}{views.get(one['view'], '')}", []).append(one)
    found["synthetic, 20 % uniform, of the encoder"] = audited["encoder"]["estimates"]
    return found


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _thousandths(found: dict[str, float]) -> str:
    return with_interval({end: 1000 * one for end, one in found.items()}, 1, sign=True)


PARTS: dict[str, Callable[[], str]] = {
    "audit": audit,
    "audit estimates": estimates,
    "audit precision": precision,
    "audit coverage": coverage,
    "audit round trip": round_trip,
    "audit few queries": few_queries,
    "audit commits": commits,
}
