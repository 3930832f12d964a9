"""Tables of SIE-Bench: what to do under which fault, and what each track measured."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from page_tables import ROOT, mean, number, result, rows_as_table, with_interval
from pictures import Picture
from sie_bench import further, grid

from sie_jax.report.plots import SERIES

FAULTS = {
    "missing_positive": "missed positives (15 %)",
    "confusion": "class confusions (20 %)",
    "annotator": "careless annotators (20 %)",
    "sellers": "adversarial sellers (20 %)",
    "position": "position bias (20 %)",
    "mixed": "all five, a fifth each",
    "mild": "annotators and sellers by halves (20 %)",
    "none": "none",
}
ACCESSES = {"a": "validation labels are faulty too", "b": "100 clean validation queries"}
BEST = {
    "uniform": "uniform",
    "linear_features": "linear",
    "linear_translation": "linear + translation",
    "stack": "stack",
    "with_validation": "the 100 learnt too",
}
METRICS = {
    "attribute": {"lds": "linear datamodelling score"},
    "negatives": {"recall@10": "recall@10", "recall@100": "recall@100"},
    "shift": {"ndcg@10": "nDCG@10"},
    "tail": {
        "tail": "nDCG@10 of the tail",
        "head": "of the head",
        "all": "of all",
        "macro_f1": "macro-F1 of the tail",
    },
}
"""The columns of each track of `sie_bench.further`."""
REAL = {
    "keep 0.8 by chance": "`keep 0.8 by chance`",
    "keep 0.8 by held_out_loss": "`keep 0.8 by held_out_loss`",
    "soften 0.8": "`soften 0.8`",
    "doubtful_groups": "`doubtful_groups`",
    "chosen, a": "chosen, access a",
    "chosen, b": "chosen, access b",
}
"""The columns of the table of real pairs."""
RIVALS = ("linear_features", "linear_translation", "stack", "with_validation")


def extent() -> str:
    """How much of the grid is measured."""
    found = result("sie_bench")
    weighed = [len(one["shops"]) for one in found["weight"].values()]
    counted = found["cells"]
    minutes = f"{counted['seconds'] / 60:.0f} minutes"
    shops = f"{min(weighed)} to {max(weighed)}" if len({*weighed}) > 1 else f"{max(weighed)}"
    return (
        f"So far decisions are measured on {shops} shops of "
        f"{len(found['shops'])}. Of all {counted['declared']:,} cells {counted['measured']:,} are "
        f"measured, in {minutes}. The same command goes on with the "
        "rest. A place without a figure is not measured on three shops yet."
    )


def decisions() -> str:
    """What to do under each fault and access, and what that gains."""
    rows = []
    for fault, text in FAULTS.items():
        for access in ACCESSES:
            found = _weight().get(fault)
            if found is None:
                rows.append([text, access, "not measured", *[""] * 6, "0"])
                continue
            chosen = found["accesses"][access]["chosen"]
            gain = chosen.get("gain")
            picks = [pick for pick in chosen["picks"] if pick]
            most = max(picks, key=picks.count) if picks else None  # the first of those that tie
            often = f"{len(picks)} of {len(chosen['picks'])}"
            rows.append(
                [
                    text,
                    access,
                    _advice(gain, most),
                    often,
                    with_interval(gain, sign=True) if gain else "",
                    _headroom(chosen),
                    _closed(chosen),
                    _bold(chosen["less_with_validation"]) if gain else "",
                    _less_best(chosen) if gain else "",
                    str(len(chosen["gains"])),
                ]
            )
    head = ["fault", "access", "what to do", "departs from uniform", "gain in nDCG@10"]
    further = ["headroom", "closed", "less the 100 learnt too", "less the best rival", "shops"]
    return rows_as_table([*head, *further], rows)


def rivals() -> str:
    """The ranker, uniform and weighted, beside linear, translation and their stack."""
    rows = []
    for fault, text in FAULTS.items():
        for access in ACCESSES:
            if (found := _weight().get(fault)) is None:
                continue
            arms, chosen = (found["accesses"][access][key] for key in ("arms", "chosen"))
            plain = _mean(arms["uniform"])
            values = [plain, plain + mean(chosen["gains"])]
            values += [_mean(arms[name]) for name in ("clean", *RIVALS) if name in arms]
            cells = [number(value) for value in values]
            if "clean" not in arms:
                cells.insert(2, number(plain))
            shares = found["memorised"].values()
            told = " · ".join(number(share, 2) for share in shares)
            rows.append([text, access, *cells, told or "–"])
    head = ["fault", "access", "uniform", "chosen", "clean labels", "`linear`"]
    return rows_as_table(
        [*head, "`linear` + translation", "stack", "the 100 learnt too", "memorised"], rows
    )


def policies() -> str:
    """Every arm's gain over uniform under each fault, by access b."""
    faults = [fault for fault in FAULTS if fault in _weight()]
    names = dict.fromkeys(
        name
        for fault in faults
        for name, arm in _weight()[fault]["accesses"]["b"]["arms"].items()
        if "gain" in arm and name not in RIVALS
    )
    rows = []
    for name in names:
        arms = [_weight()[fault]["accesses"]["b"]["arms"].get(name, {}) for fault in faults]
        shops = max(sum(one is not None for one in arm.get("test", ())) for arm in arms)
        rows.append([f"`{name}`", *(_gain(arm) for arm in arms), str(shops), _cost(name)])
    return rows_as_table(["policy", *(FAULTS[fault] for fault in faults), "shops", "cost"], rows)


def _cost(name: str) -> str:
    """What a policy costs before its run, in forward-equivalents and seconds; "" of one that is
    taught, which asks for it three times."""
    of = result("sie_bench_cost")["policies"].get(name)
    if of is None:
        return ""
    return f"{of['forward_equivalents']:.0f}, {of['seconds']:.1f} s"


def real() -> str:
    """What policies gain on real pairs under planted faults."""
    found = result("sie_bench_real")
    named = {"esci": "ESCI", "icecat": "Icecat"}
    rows = []
    for name, of_faults in found["sets"].items():
        for fault, of in of_faults.items():
            gains = []
            for arm in REAL:
                claim = of["less uniform"][arm]
                text = with_interval(claim, sign=True)
                gains.append(f"**{text}**" if claim.get("holm", 1.0) < 0.05 else text)
            values = [number(of["ndcg@10"][arm]["value"]) for arm in ("uniform", "linear")]
            wrong = f"{of['wrong']:.0%}" if of["wrong"] else "–"
            headroom = with_interval(of["less uniform"]["clean"], sign=True) if of["wrong"] else "–"
            rows.append([f"{named[name]}, {fault}", wrong, *values, headroom, *gains])
    head = ["pairs, fault", "wrong", "uniform", "`linear`", "headroom"]
    return rows_as_table([*head, *REAL.values()], rows)


def cost_of_run() -> str:
    """What the run costs that every policy has."""
    of = result("sie_bench_cost")["run"]
    return (
        f"A run by itself takes {of['forward_equivalents']:.0f} forward-equivalents for each pair, "
        f"{of['seconds']:.1f} s on one of these shops."
    )


def find() -> str:
    """AUROC of each score for the wrong labels under each fault."""
    return _detection("auroc")


def find_read() -> str:
    """The share of labels that is read until 80 % of the wrong ones are found."""
    return _detection("read")


def relabel() -> str:
    """What mending labels gains, by what is read first."""
    rows = []
    for fault, budgets in result("sie_bench_tracks")["relabel"].items():
        for budget, found in budgets.items():
            for score, one in found.items():
                rows.append(
                    [
                        FAULTS[fault],
                        f"{100 * float(budget):.0f} %",
                        f"`{score}`",
                        f"{100 * one['wrong_among_read']:.0f} %",
                        with_interval(one["gain"], sign=True),
                        number(1000 * one["per_100"]["value"], 2, sign=True),
                        _less(one.get("less_twice_at_random")),
                    ]
                )
    head = ["fault", "labels read", "by", "wrong among them", "gain in nDCG@10"]
    further_heads = ["per 100 labels, in 0.001", "less twice as many at random"]
    return rows_as_table([*head, *further_heads], rows)


def prune() -> str:
    """What pruning costs, by the share that is kept."""
    rows = []
    for compute, found in result("sie_bench_tracks")["prune"].items():
        for policy, shares in found.items():
            measured = [shares.get(f"{share:g}") for share in grid.KEPT]
            cells = [with_interval(one["less_all"], sign=True) if one else "" for one in measured]
            rows.append([compute, f"`{policy}`", *cells])
    head = [f"{100 * share:.0f} % kept" for share in grid.KEPT]
    return rows_as_table(["compute", "lists kept", *head], rows)


def track(name: str) -> str:
    """The arms of a track of `sie_bench.further`: its metrics, and what they differ by."""
    reference, strength = further.REFERENCE[name]
    plain = f"{reference} {strength:g}" if strength else reference
    metrics, compared = METRICS[name], further.COMPARED[name]
    rows = []
    for arm, of in result("sie_bench_further")[name]["arms"].items():
        cells = [with_interval(of["metrics"][metric]) for metric in metrics]
        less = [of["less_reference"].get(metric) for metric in compared]
        rows.append([f"`{arm}`", *cells, *(_bold(one) if one else "" for one in less)])
    heads = [f"{metrics[metric]} less `{plain}`" for metric in compared]
    return rows_as_table(["", *metrics.values(), *heads], rows)


def extent_of_further() -> str:
    """On how many shops each track is measured."""
    found = result("sie_bench_further")
    told = [f"{name} on {len(found[name]['shops'])} shops" for name in METRICS]
    return f"Measured are {', '.join(told)} of {len(found['shops'])}."


def again() -> str:
    """Whether cells that were kept are the same when they are measured again."""
    found = result("sie_bench_again")
    same = sum(row["equal"] for row in found["cells"])
    fault = FAULTS[found["fault"]]
    return (
        f"Of shop {found['shop']} under the fault “{fault}” {len(found['cells'])} cells were kept "
        f"on {found['kept_since']}. Measured again on {found['date']}, {same} of them are equal "
        "to the last digit."
    )


def _detection(measure: str) -> str:
    found = result("sie_bench_tracks")["find"]
    faults = [fault for fault in FAULTS if fault in found]
    scores = dict.fromkeys(score for fault in faults for score in found[fault])
    rows = [
        [f"`{score}`", *(number(found[fault][score][measure]["value"]) for fault in faults)]
        for score in scores
    ]
    return rows_as_table(["score", *(FAULTS[fault] for fault in faults)], rows)


def _weight() -> dict[str, Any]:
    found: dict[str, Any] = result("sie_bench")["weight"]
    return found


def _mean(arm: Mapping[str, Any]) -> float:
    return mean([one for one in arm["test"] if one is not None])


def _gain(arm: Mapping[str, Any]) -> str:
    """The gain, bold where it survives Holm's correction."""
    if "gain" not in arm:
        return "–"
    text = number(arm["gain"]["value"], sign=True)
    return f"**{text}**" if arm["gain"]["holm"] < 0.05 else text


def _advice(gain: Mapping[str, Any] | None, most: str | None) -> str:
    """To choose, with the arm that was chosen most often, if that gained; uniform if not."""
    if gain is None or gain["low"] is None:
        return "not measured"
    return f"choose (most often `{most}`)" if gain["low"] > 0 else "use uniform"


def _less(claim: Mapping[str, Any] | None) -> str:
    return with_interval(claim, sign=True) if claim else ""


def _less_best(chosen: Mapping[str, Any]) -> str:
    """What is chosen, less the rival with the highest mean; bold where it survives Holm's."""
    return f"{_bold(chosen['less_best_rival'])} ({BEST[chosen['best_rival']]})"


def _bold(claim: Mapping[str, Any]) -> str:
    """A difference with its interval, bold where it survives Holm's correction."""
    text = with_interval(claim, sign=True)
    return f"**{text}**" if claim["holm"] < 0.05 else text


def _headroom(chosen: Mapping[str, Any]) -> str:
    return with_interval(chosen["headroom"], sign=True) if chosen.get("headroom") else "–"


def _closed(chosen: Mapping[str, Any]) -> str:
    if not chosen.get("closed"):
        return "–"
    value, low, high = (f"{100 * chosen['closed'][end]:.0f}" for end in ("value", "low", "high"))
    return f"{value} % [{low}, {high}]".replace("-", "−")


DRAWN = {
    "linear_translation": ("linear + translation", "s", SERIES[4]),
    "uniform": ("uniform", "o", SERIES[0]),
    "with_validation": ("learns from the 100 too", "^", SERIES[3]),
    "chosen": ("chosen policy", "D", SERIES[2]),
    "clean": ("all labels right", "|", "0.2"),
}
"""What the picture has of each fault, with its text, mark and colour."""


@matplotlib.rc_context({"font.size": 9, "svg.hashsalt": "sie_jax"})
def drawn(found: Mapping[str, Any]) -> Figure:
    """nDCG@10 under each fault by access b, the mean over shops: rivals, choice, clean labels."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    faults = [fault for fault in FAULTS if fault in found["weight"]]
    for row, fault in enumerate(faults):
        of = found["weight"][fault]["accesses"]["b"]
        arms = {name: _mean(arm) for name, arm in of["arms"].items()}
        arms["chosen"] = arms["uniform"] + mean(of["chosen"]["gains"])
        if row % 2:
            axes.axhspan(row - 0.5, row + 0.5, color="0.95", linewidth=0)
        for name, (text, mark, colour) in DRAWN.items():
            if name in arms:
                label = None if row else text
                axes.plot(arms[name], row, mark, color=colour, markersize=7, label=label)
    axes.set(
        xlabel="nDCG@10 on test queries, whose labels are right; mean over shops",
        yticks=range(len(faults)),
        ylim=(len(faults) - 0.5, -0.5),
    )
    axes.set_yticklabels([FAULTS[fault] for fault in faults])
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(DRAWN), frameon=False)
    return figure


PICTURE = Picture(ROOT / "docs" / "sie_bench.svg", "sie_bench", drawn)
PARTS: dict[str, Callable[[], str]] = {
    "sie-bench extent": extent,
    "sie-bench decisions": decisions,
    "sie-bench rivals": rivals,
    "sie-bench policies": policies,
    "sie-bench cost": cost_of_run,
    "sie-bench real": real,
    "sie-bench find": find,
    "sie-bench find read": find_read,
    "sie-bench relabel": relabel,
    "sie-bench prune": prune,
    "sie-bench extent of further": extent_of_further,
    "sie-bench again": again,
    **{f"sie-bench {name}": functools.partial(track, name) for name in METRICS},
}
