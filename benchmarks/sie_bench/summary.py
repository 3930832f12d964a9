"""What the cells say: per-shop numbers, their differences, and what was chosen without the truth.

Every interval is Student's over shops, 95 %: a shop brings its own words, queries, faults, training
and test queries and training seeds, so that it covers all of these, for shops of this generator and
size. Arms are compared within a shop.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from sie_bench import faults, further, grid, tracks
from sie_bench.cells import Cell
from sie_jax.evaluation import claims
from sie_jax.evaluation.slices import holm

ACCESSES = ("a", "b")
Found = Mapping[Cell, Mapping[str, Any]]
"""The values of cells."""
Name = TypeVar("Name")
_DIGITS = 5
_FEWEST = 3  # shops that an interval needs


def name_of(cell: Cell) -> str:
    """What a reader calls an arm: 'keep 0.8 by held_out_loss', 'settle, taught'."""
    strength = f" {cell.strength:g}" if cell.strength else ""
    by = f" by {cell.score}" if cell.score else ""
    return f"{cell.policy}{strength}{by}{', taught' if cell.taught else ''}"


def uniform_of(found: Found, shop: int, fault: str, access: str) -> dict[str, Any] | None:
    """Uniform as tuned on the shop: {"test", "validation"}, means over the setting's seeds.

    It has the setting that is best on the development shops, or another one that is more than one
    standard error above that on the validation queries: the best of several on 100 queries alone
    was worse than the first. None where one of its cells is missing.
    """
    runs = defaultdict(list)
    for cell in grid.weight(shop, fault):
        if cell.policy == "uniform":
            if cell not in found:
                return None
            runs[cell.setting].append(found[cell][access])
    tuned = {
        setting: {
            "test": float(np.mean([one["test"] for one in each])),
            "validation": np.mean([_values(one) for one in each], 0),
        }
        for setting, each in runs.items()
    }
    main = tuned.pop(grid.MAIN)
    other = chosen(tuned, main, 1.0)
    return main if other is None else tuned[other]


def chosen(
    candidates: Mapping[Name, Mapping[str, Any]], reference: Mapping[str, Any], margin: float
) -> Name | None:
    """The arm to use, by validation queries alone; None is the reference.

    candidates, reference: {"validation": nDCG@10 of each query, None where it has none}. It is the
    arm with the highest mean, if its mean paired difference from the reference is above `margin`
    standard errors.
    """
    if not candidates:
        return None
    plain = _values(reference)
    gains = {name: _values(one) - plain for name, one in candidates.items()}
    best = max(gains, key=lambda name: float(np.nanmean(gains[name])))
    gain = gains[best][~np.isnan(gains[best])]
    error = float(gain.std(ddof=1)) / len(gain) ** 0.5
    return best if gain.mean() > margin * error else None


def weight(found: Found, shops: Sequence[int]) -> dict[str, Any]:
    """Per fault and access the arms' test nDCG@10 of each shop, gains, and the choice."""
    result: dict[str, Any] = {}
    for fault in grid.FAULTS:
        cells = {
            shop: [cell for cell in grid.weight(shop, fault) if cell.policy != "uniform"]
            for shop in shops
        }
        # the shops of which everything that is asked for is there
        names = [name_of(cell) for cell in cells[shops[0]]] if shops else []
        done = [
            shop
            for shop in shops
            if uniform_of(found, shop, fault, "a") and grid.core(cells[shop]) <= found.keys()
        ]
        if not done:
            continue
        result[fault] = {"shops": done, "accesses": {}, "memorised": _memorised(found, done, fault)}
        for access in ACCESSES:
            result[fault]["accesses"][access] = _access(found, done, fault, access, cells, names)
    _adjust(result)
    return result


def _access(found, done, fault, access, cells, names) -> dict[str, Any]:
    tuned = [uniform_of(found, shop, fault, access) for shop in done]
    uniform = [one for one in tuned if one is not None]
    plain = np.array([one["test"] for one in uniform])
    arms: dict[str, Any] = {"uniform": {"test": _rounded(plain)}}
    for place, name in enumerate(names):
        own = [found.get(cells[shop][place], {}).get(access) for shop in done]
        some = np.array([one is not None for one in own])
        if not some.any():
            continue
        test = np.array([np.nan if one is None else one["test"] for one in own])
        arms[name] = {"test": _rounded(test)}
        if some.sum() >= _FEWEST:
            arms[name]["gain"] = _claim((test - plain)[some])
    picks: list[str | None] = []
    gains = []
    for at, shop in enumerate(done):
        pick = _picked(found, cells[shop], uniform[at], access)
        departs = pick is not None and found[pick].get("departs", True)
        picks.append(name_of(pick) if pick is not None and departs else None)
        gains.append(0.0 if pick is None else found[pick][access]["test"] - plain[at])
    clean = arms.get("clean", arms["uniform"])["test"]
    headroom = np.array([np.nan if one is None else one for one in clean], float) - plain
    outcome: dict[str, Any] = {
        "picks": picks,
        "gains": _rounded(np.array(gains)),
        "headrooms": _rounded(headroom),
        "departures": sum(pick is not None for pick in picks),
    }
    if len(done) >= _FEWEST:
        outcome["gain"] = _claim(np.array(gains))
        outcome["headroom"] = _claim(headroom)
        outcome["closed"] = ratio(np.array(gains), headroom)
        rivals = {name: np.array(arms[name]["test"]) for name in ("uniform", *tracks.RIVALS)}
        best = max(rivals, key=lambda name: float(rivals[name].mean()))
        outcome["best_rival"] = best
        outcome["less_best_rival"] = _claim(plain + np.array(gains) - rivals[best])
        taught = plain + np.array(gains) - rivals["with_validation"]
        outcome["less_with_validation"] = _claim(taught)
    return {"arms": arms, "chosen": outcome}


def _picked(
    found: Found, cells: Sequence[Cell], uniform: Mapping[str, Any], access: str
) -> Cell | None:
    """The cell of what is chosen for a shop without the truth; None is uniform.

    Under access a `doubtful_groups` where it finds any, else of FINALISTS by all validation
    queries. Under access b of TAUGHT by the trusted lists.
    """

    def kinds(cell: Cell) -> tuple[str, str, float]:
        return cell.score, cell.policy, cell.strength

    taught = [cell for cell in cells if cell.taught]
    if access == "b":
        first, *others = taught
        pick = chosen({one: found[one]["b"] for one in others}, found[first]["b"], grid.MARGIN["b"])
        return first if pick is None else pick
    plain = [cell for cell in cells if not cell.taught]
    (groups,) = (cell for cell in plain if cell.policy == "doubtful_groups")
    if found[groups]["departs"]:
        return groups
    candidates = {one: found[one]["a"] for one in plain if kinds(one) in grid.FINALISTS}
    return chosen(candidates, uniform, grid.MARGIN["a"])


def ratio(gains: np.ndarray, headrooms: np.ndarray) -> dict[str, float] | None:
    """R = Σ gains / Σ headrooms over S shops, with Student's 95 % interval of the linearised ratio.

    Its standard error is √(Σ (g - R h)² / (S (S - 1))) / mean h. None where the interval of the
    mean headroom is not above 0: nothing is there to be closed. Source: Cochran, Sampling
    Techniques, 1977, section 6.
    """
    claim = claims.fixed(headrooms)
    if claim["low"] is None or claim["low"] <= 0:
        return None
    value = float(gains.sum() / headrooms.sum())
    rest = claims.fixed((gains - value * headrooms) / headrooms.mean())
    low, high = (value + (rest[end] or 0.0) for end in ("low", "high"))
    return {name: round(one, 4) for name, one in zip(_ENDS, (value, low, high), strict=True)}


_ENDS = ("value", "low", "high")


def find(found: Found, shops: Sequence[int]) -> dict[str, Any]:
    """Per fault and score each measure's per-shop numbers, and its mean with the interval."""
    result: dict[str, Any] = {}
    for fault in grid.FAULTS:
        for cell in grid.find(0, fault):
            own = [found.get(_of(cell, shop)) for shop in shops]
            values = [one for one in own if one is not None]
            if len(values) >= _FEWEST:
                result.setdefault(fault, {})[cell.score] = {
                    measure: {
                        **_claim(np.array([one[measure] for one in values])),
                        "shops": _rounded(np.array([one[measure] for one in values]), 4),
                    }
                    for measure in ("auroc", "average_precision", "precision", "read")
                }
    return result


def relabel(found: Found, shops: Sequence[int], access: str = "b") -> dict[str, Any]:
    """Per fault, budget and score the gain of mending labels, in all and per 100 labels read.

    less_twice_at_random: the gain less that of twice as many labels in random order.
    """
    result: dict[str, Any] = {}
    for fault in faults.BIASING:
        for cell in grid.relabel(0, fault):
            gains, per, mended, left, less = [], [], [], [], []
            twice = replace(cell, score="chance", budget=2 * cell.budget)
            for shop in shops:
                one, plain = found.get(_of(cell, shop)), uniform_of(found, shop, fault, access)
                if one is None or plain is None:
                    continue
                gain = one[access]["test"] - plain["test"]
                gains.append(gain)
                per.append(100 * gain / one["read"])
                mended.append(one["mended"] / one["read"])
                left.append(shop)
                if random := found.get(_of(twice, shop)):
                    less.append(one[access]["test"] - random[access]["test"])
            if len(gains) >= _FEWEST:
                row = {
                    "shops": left,
                    "gains": _rounded(np.array(gains)),
                    "gain": _claim(np.array(gains)),
                    "per_100": _claim(np.array(per), 7),
                    "wrong_among_read": round(float(np.mean(mended)), 4),
                }
                if len(less) == len(gains):
                    row["less_twice_at_random"] = _claim(np.array(less))
                result.setdefault(fault, {}).setdefault(f"{cell.budget:g}", {})[cell.score] = row
    return result


def prune(found: Found, shops: Sequence[int], access: str = "b") -> dict[str, Any]:
    """Per compute, pruning and share kept the test nDCG@10 less that of all data, by shop.

    That of all data is the mean over `grid.WHOLE`: one run would be in all differences of a shop.
    """
    result: dict[str, Any] = {}
    cells = [*grid.prune(0, "none")]
    whole, others = cells[: len(grid.WHOLE)], cells[len(grid.WHOLE) :]
    for cell in others:
        values, left = [], []
        for shop in shops:
            every = [found.get(_of(one, shop)) for one in whole]
            runs = [one[access]["test"] for one in every if one is not None]
            one = found.get(_of(cell, shop))
            if one is not None and len(runs) == len(whole):
                values.append(one[access]["test"] - float(np.mean(runs)))
                left.append(shop)
        if len(values) >= _FEWEST:
            own = result.setdefault(cell.compute, {}).setdefault(cell.policy, {})
            own[f"{cell.budget:g}"] = {
                "shops": left,
                "less_all": _claim(np.array(values)),
                "by_shop": _rounded(np.array(values)),
            }
    return result


def compared(found: Found, shops: Sequence[int], track: str) -> dict[str, Any]:
    """Per arm of a track of `further` its metrics, and those compared less the reference's.

    Of the shops on which every arm is measured; the differences are one family (Holm).
    """
    of = {shop: [*grid.TRACKS[track](shop, "none")] for shop in shops}
    done = [shop for shop, cells in of.items() if all(cell in found for cell in cells)]
    if len(done) < _FEWEST:
        return {}
    values = {
        (cell.policy, cell.strength): [found[_of(cell, shop)] for shop in done]
        for cell in of[done[0]]
    }
    plain = values[further.REFERENCE[track]]
    arms: dict[str, dict[str, Any]] = {}
    claims_of: list[dict[str, Any]] = []
    for (policy, strength), each in values.items():
        columns = {name: np.array([one[name] for one in each]) for name in each[0]}
        less: dict[str, dict[str, Any]] = {}
        if each is not plain:
            for name in further.COMPARED[track]:
                less[name] = _claim(columns[name] - np.array([one[name] for one in plain]))
        claims_of += less.values()
        arms[f"{policy} {strength:g}" if strength else policy] = {
            "metrics": {name: _without_p(_claim(column)) for name, column in columns.items()},
            "by_shop": {name: _rounded(column) for name, column in columns.items()},
            "less_reference": less,
        }
    for claim, p in zip(claims_of, holm([one.pop("p") for one in claims_of]), strict=True):
        claim["holm"] = round(float(p), 5)
    return {"shops": done, "arms": arms}


def _without_p(claim: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in claim.items() if name != "p"}


def _of(cell: Cell, shop: int) -> Cell:
    return Cell(**{**vars(cell), "data": shop})


def _memorised(found: Found, shops: Sequence[int], fault: str) -> dict[str, float]:
    """The share of wrong training labels that uniform predicts as given, by setting."""
    values = defaultdict(list)
    for shop in shops:
        for cell in grid.weight(shop, fault):
            if cell.policy == "uniform" and "memorised" in found[cell]:
                values[f"decay {cell.setting[1]:g}"].append(found[cell]["memorised"])
    return {name: round(float(np.mean(each)), 4) for name, each in values.items()}


def _adjust(result: dict[str, Any]) -> None:
    """Holm over all faults and accesses of the track: `holm` beside each claim.

    The gains of all arms are one family; what is chosen, less each rival, are further ones.
    """
    accesses = [access for fault in result.values() for access in fault["accesses"].values()]
    gains = [arm for one in accesses for arm in (*one["arms"].values(), one["chosen"])]
    less = [one["chosen"] for one in accesses]
    for name, found in (("gain", gains), ("less_best_rival", less), ("less_with_validation", less)):
        told = [one[name] for one in found if name in one]
        for claim, adjusted in zip(told, holm([one.pop("p") for one in told]), strict=True):
            claim["holm"] = round(float(adjusted), 5)


def _claim(differences: np.ndarray, digits: int = _DIGITS) -> dict[str, Any]:
    p = claims.p_value(lambda level: claims.fixed(differences, level=level))
    ends = {
        name: None if value is None else round(value, digits)
        for name, value in claims.fixed(differences).items()
    }
    return {**ends, "p": p}


def _rounded(values: np.ndarray, digits: int = _DIGITS) -> list[float | None]:
    return [None if np.isnan(one) else round(float(one), digits) for one in values]


def _values(one: Mapping[str, Any]) -> np.ndarray:
    return np.array([np.nan if each is None else each for each in one["validation"]], float)
