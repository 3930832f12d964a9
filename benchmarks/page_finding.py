"""The tables of docs/recommendation.md, retrieval.md, chain.md, conversation.md, off_policy.md."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from page_tables import measured_by, number, p_value, result, rows_as_table, with_interval
from scipy import special

from sie_jax.evaluation.slices import holm

BASELINES = ("popularity", "repeat", "item_neighbours", "als", "bpr")
WAYS = (
    *("words", "checkpoint", "tuned", "longer", "raw", "denoised", "weighted"),
    *("fused", "weighed"),
)


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


def mined(name: str) -> str:
    """Every kind of mined negatives, less further training without them."""
    found = result(f"retrieving_{name}")
    metrics, further = ["recall@100", "ndcg@10"], found["further"]["longer"]
    kinds = list(found["mined"])
    p_of = {
        metric: dict(
            zip(
                kinds,
                holm([_p_value(further[kind][metric], found) for kind in kinds]),
                strict=True,
            )
        )
        for metric in metrics
    }
    rows = []
    for way in ("longer", *kinds):
        truth = found["mined"].get(way)
        cells = [
            f"{with_interval(further[way][one], sign=True)}, p {p_value(float(p_of[one][way]))}"
            for one in metrics
            if truth
        ]
        rows.append(
            [
                f"`{way}`",
                *(number(found["test"][way][metric]["value"]) for metric in metrics),
                *(cells or ["", ""]),
                *(number(truth[one], 2) if truth else "" for one in ("wanted", "substitutes")),
            ]
        )
    head = [
        *("", *metrics, *(f"{one} less `longer`" for one in metrics)),
        *("wanted among mined", "substitutes among mined"),
    ]
    return rows_as_table(head, rows)


def _p_value(difference: Mapping[str, float], found: Mapping[str, Any]) -> float:
    """Of a mean difference over queries with its 95 % t interval."""
    degrees = found["queries"]["evaluated"] - 1
    half = (difference["high"] - difference["low"]) / 2
    error = half / special.stdtrit(degrees, 0.975)
    return float(2 * special.stdtr(degrees, -abs(difference["value"]) / error))


def scale() -> str:
    """Building and searching large indexes."""
    found = result("catalogue_scale")
    rows = []
    for one in found["searched"]:
        kind = one["kind"] if one["kind"] == "exact" else f"{one['kind']}, {one['effort']}"
        rows.append(
            [
                kind,
                f"{one['items']:,}",
                number(one["build_seconds"], 1),
                number(one["milliseconds"], 2),
                number(one["recall"], 3),
            ]
        )
    head = ["index, effort", "items", "seconds to build", "milliseconds a query", "recall@100"]
    return rows_as_table(head, rows)


def plan() -> str:
    """What ten million items would take, by what was measured of a million."""
    found = result("catalogue_scale")
    rows = []
    for name, width in (("towers", found["width"]), ("pretrained", 384)):
        rate = found["encoding"][name]["texts_per_second"]
        rows.append(
            [
                "the shop's towers" if name == "towers" else "MiniLM-L6",
                f"{rate:,.0f}",
                number(1e7 / rate / 3600, 1),
                number(1e7 * width * 4 / 2**30, 1),
            ]
        )
    head = [
        *("encoder", "texts a second", "hours for 10 million, one such machine"),
        "GiB of vectors",
    ]
    return rows_as_table(head, rows)


def chain(name: str) -> str:
    """Every way and step of a chain."""
    found = result(f"chaining_{name}")
    rows = []
    for step, values in found["test"].items():
        less = found["difference"].get(step, {}).get("ndcg@10")
        rows.append(
            [
                f"`{step}`",
                with_interval(values["recall@10"]),
                with_interval(values["ndcg@10"]),
                with_interval(less, sign=True) if less else "",
                number(found["ceiling"][step]) if step in found["ceiling"] else "",
                number(found["within"][step], 2),
                number(found["milliseconds"][step], 1) if step in found["milliseconds"] else "",
            ]
        )
    head = [
        *("", "recall@10", "ndcg@10", "ndcg@10 less `words`", "ceiling of ndcg@10"),
        *("unlike within", "milliseconds"),
    ]
    return rows_as_table(head, rows)


def chain_claims(name: str) -> str:
    """The verdict's sentences, and the chain against re-ranking everything."""
    found = result(f"chaining_{name}")
    every = found["everything"]
    less, took = every["chain_less_everything"], every["milliseconds"]
    notes = [
        *found["verdict"]["notes"],
        f"On the first {every['queries']} test queries the chain, without the step that "
        f"diversifies, has an ndcg@10 of {number(every['ndcg@10']['chain']['value'])} in "
        f"{took['chain']:.0f} milliseconds a query. A ranker of the same kind that is fitted on, "
        "and ranks, the whole catalogue has "
        f"{number(every['ndcg@10']['everything']['value'])} in {took['everything']:.0f}: a "
        f"difference of {with_interval(less, sign=True)}.",
    ]
    return "\n".join(f"- {note}" for note in notes)


def chats(name: str) -> str:
    """What is found for chats, by each way to ask."""
    found = result("conversing")["searched"][name]
    rows = []
    for how, values in found["test"].items():
        less = found["difference"].get(how, {}).get("ndcg@10")
        rows.append(
            [
                how,
                with_interval(values["ndcg@10"]),
                with_interval(values["recall@10"]),
                with_interval(less, sign=True) if less else "",
                number(found["validation"][how]),
            ]
        )
    head = ["asked with", "ndcg@10", "recall@10", "ndcg@10 less all", "validation ndcg@50"]
    return rows_as_table(head, rows)


def chat_claims(name: str) -> str:
    """The verdict's sentences."""
    notes = result("conversing")["searched"][name]["verdict"]["notes"]
    return "\n".join(f"- {note}" for note in notes)


def intents() -> str:
    """How well intents are told, with all examples and with few."""
    told = result("conversing")["intents"]
    rows = []
    for name, one in told["test"].items():
        less = told["difference"].get(name)
        rows.append(
            [
                f"all {told['sentences']['train']:,}",
                name,
                with_interval(one["accuracy"], 4),
                with_interval(less, 4, sign=True) if less else "",
                number(one["macro_f1"], 4),
                number(one["calibration_error"], 4),
            ]
        )
    for count, few in told["few"].items():
        for name, accuracy in few["accuracy"].items():
            less = few["difference"].get(name)
            rows.append(
                [
                    f"{count} of each intent",
                    name,
                    with_interval(accuracy),
                    with_interval(less, sign=True) if less else "",
                    "",
                    "",
                ]
            )
    head = [
        *("examples", "model", "accuracy", "accuracy less words", "macro_f1"),
        "calibration error",
    ]
    return rows_as_table(head, rows)


def seasons() -> str:
    """Popularity of some time."""
    found = result("seasons")["found"]
    rows = [
        [
            name,
            with_interval(one["ndcg@10"]),
            with_interval(one["recall@20"]),
            with_interval(one["difference"], sign=True) if one["difference"]["value"] else "",
        ]
        for name, one in found.items()
    ]
    return rows_as_table(["popularity in", "ndcg@10", "recall@20", "ndcg@10 less the first"], rows)


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
    **{f"mined, {name}": functools.partial(mined, name) for name in ("shop", "clicked")},
    "scale": scale,
    "ten million": plan,
    "chain, shop": functools.partial(chain, "shop"),
    "chain claims, shop": functools.partial(chain_claims, "shop"),
    **{f"chats, {name}": functools.partial(chats, name) for name in ("words", "chain")},
    **{f"chat claims, {name}": functools.partial(chat_claims, name) for name in ("words", "chain")},
    "intents": intents,
    "seasons": seasons,
    "off policy, simulated": simulated,
    "off policy, open bandit": open_bandit,
    **{
        f"measured by {name}": functools.partial(measured_by, name)
        for name in (
            *(f"recommending_{one}" for one in SETS),
            *("retrieving_shop", "retrieving_clicked", "retrieving_esci", "off_policy"),
            *("chaining_shop", "conversing", "catalogue_scale", "seasons"),
        )
    },
}
