"""The tables of docs/recommendation.md, docs/retrieval.md and docs/off_policy.md."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from page_tables import measured_by, number, result, rows_as_table, with_interval

BASELINES = ("popularity", "repeat", "item_neighbours", "als", "bpr")
WAYS = ("words", "checkpoint", "tuned", "fused", "weighed")


def recommenders(name: str) -> str:
    """Every recommender of a set, the published figures last."""
    found = result(f"recommending_{name}")
    metrics = ["hit@5", "ndcg@5", "ndcg@10", "recall@20"]
    if name == "online_retail":
        metrics = ["ndcg@10", "recall@10", "recall@20"]
    rows = []
    for run, values in found["test"].items():
        seeds = len(found["seeds"][run]["ndcg@10"])
        rows.append(
            [
                f"`{run}`" + (f", {seeds} seeds" if seeds > 1 else ""),
                *(with_interval(values[metric], 4) for metric in metrics),
                number(found["beyond"][run]["coverage"], 2),
                number(found["beyond"][run]["gini"], 2),
            ]
        )
    if published := found["published"]:
        cells = [number(published[one], 4) if one in published else "" for one in metrics]
        rows.append(["ICLRec, as published", *cells, "", ""])
    return rows_as_table(["", *metrics, "coverage", "gini"], rows)


def recommending_claims(name: str) -> str:
    """The verdict's sentences."""
    return "\n".join(f"- {note}" for note in result(f"recommending_{name}")["verdict"]["notes"])


def groups(name: str) -> str:
    """Users and items that were not there in training."""
    found = result(f"recommending_{name}")["groups"]
    runs = list(dict.fromkeys(run for one in found.values() for run in one["test"]))
    columns = [(group, metric) for group, one in found.items() for metric in one["shown"]]
    head = ["", *(f"{group} ({found[group]['users']:,}): {metric}" for group, metric in columns)]

    def cell(run: str, group: str, metric: str) -> str:
        values: Mapping[str, Any] = found[group]["test"].get(run, {})
        return with_interval(values[metric]) if metric in values else ""

    return rows_as_table(
        head, [[f"`{run}`", *(cell(run, *one) for one in columns)] for run in runs]
    )


def retrieving(name: str) -> str:
    """Every way to search a catalogue."""
    found = result(f"retrieving_{name}")
    metrics = ["recall@10", "recall@100", "ndcg@10"]
    rows = []
    for way in WAYS:
        if way not in found["test"]:
            continue
        difference = found["difference"].get(way, {}).get("recall@100")
        rows.append(
            [
                f"`{way}`",
                *(with_interval(found["test"][way][metric]) for metric in metrics),
                with_interval(difference, sign=True) if difference else "",
                number(found["unjudged"][way], 2),
            ]
        )
    head = ["", *metrics, "recall@100 less `words`", "unjudged in the first ten"]
    return rows_as_table(head, rows)


def simulated() -> str:
    """Bias and coverage of each estimate."""
    found = result("off_policy")["simulated"]
    rows = []
    for policy, one in found.items():
        for setting, values in one["settings"].items():
            rows.append(
                [
                    policy,
                    setting,
                    f"{values['effective_sample_size']:,.0f}",
                    *(_estimate(values[name]) for name in ("ips", "snips", "dr")),
                ]
            )
    head = ["the log's policy", "what is known", "effective sample size", "IPS", "SNIPS", "DR"]
    return rows_as_table(head, rows)


def _estimate(found: Mapping[str, float]) -> str:
    bias, error = number(found["bias"], 4, sign=True), number(2 * found["bias_error"], 4)
    return f"{bias} ± {error}; {found['coverage']:.0%}"


def open_bandit() -> str:
    """What the random log says of Thompson sampling."""
    found = result("off_policy")["open_bandit"]
    asked = found["asked"]
    rows = [
        [f"{name.upper()}, from the random log", with_interval(asked[name], 4)]
        for name in ("ips", "snips", "dr")
    ]
    rows.append([f"earned ({found['earned_clicks']} clicks)", with_interval(found["earned"], 4)])
    rows.append([f"random ({found['random_clicks']} clicks)", with_interval(found["random"], 4)])
    return rows_as_table(["click rate of Thompson sampling", ""], rows)


SETS = ("beauty", "toys", "online_retail")
PARTS: dict[str, Callable[[], str]] = {
    **{f"recommenders, {name}": functools.partial(recommenders, name) for name in SETS},
    **{f"recommending, {name}": functools.partial(recommending_claims, name) for name in SETS},
    "groups, online_retail": functools.partial(groups, "online_retail"),
    **{f"retrieving, {name}": functools.partial(retrieving, name) for name in ("shop", "esci")},
    "off policy, simulated": simulated,
    "off policy, open bandit": open_bandit,
    **{
        f"measured by {name}": functools.partial(measured_by, name)
        for name in (
            *(f"recommending_{one}" for one in SETS),
            *("retrieving_shop", "retrieving_esci", "off_policy"),
        )
    },
}
