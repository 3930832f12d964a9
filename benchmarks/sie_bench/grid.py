"""The declared grid: which cells each track has for a shop and a fault.

track     shops   cells of a shop                                        seconds of a shop
weight       20   8 faults × (5 uniform + 4 rivals + 39 arms + 3 taught) 8 × (30 + 51 × 1)
  core       20   8 faults × (5 uniform + 4 rivals + 4 arms + 3 taught)  8 × 40
find         20   7 faults × 21 scores                                   7 × 6
relabel      20   5 faults × (6 scores × 2 budgets + 2 of chance)        70 × 1
prune        20   6 prunings × (5 budgets × 2 computes + 3), 6 of all    84 × 0.8
attribute    20   9 scores, and models trained again                     100
negatives    20   8 guards × 2 seeds × 2 numbers of epochs, and BM25     100
shift, tail  20   10 and 9 arms × 3 seeds                                90

A cell of a ranker is half a second of training and half a second of predictions on 3,000 queries,
on a core that is free. What is known of a shop and fault (`evidence`) takes ten seconds, and all
its cells share it. A taught policy is trained three times, and asks for three correctors.
Decisions (`--core`) of 20 shops are two hours of one core.
"""

import functools
from collections.abc import Callable, Iterable, Iterator

from sie_bench import faults, further, model, scores, tracks
from sie_bench.cells import Cell

DEVELOPMENT = tuple(range(10))
REPORTED = tuple(range(106, 126))
"""Figures of 101 to 105 had been seen before the policies that learn from trusted lists, and those
of whole groups, were made; parts of 100 before all others."""
FAULTS = ("none", *faults.BIASING, "mixed", "mild")
"""`mild` is one that nothing here was made for: policies had not been tried on it before."""
MAIN = (4, 1.0)
"""The setting (epochs, weight decay) of all policies: the best of uniform on shops 0 and 1."""
UNIFORM = ((MAIN, 0), (MAIN, 1), (MAIN, 2), ((4, 0.5), 0), ((4, 2.0), 0))
"""Settings and seeds of uniform, which alone is tuned on each shop."""
CONTROLS = (
    ("chance", "keep", 0.8),
    ("permuted", "keep", 0.8),
    ("held_out_loss", "keep_hardest", 0.8),
    ("", "oracle_drop", 0.0),
    ("", "clean", 0.0),
)
BLIND = (
    ("held_out_loss", "keep", 0.8),
    ("held_out_loss", "keep", 0.9),
    ("held_out_loss", "keep_banded", 0.8),
    ("confident", "keep", 0.8),
    ("first_loss", "keep", 0.8),
    ("", "small_loss", 0.2),
    ("", "truncated", 0.5),
    ("", "soften", 0.5),
    ("", "soften", 0.8),
    ("", "confident_forward", 0.0),
    ("first_norm", "keep", 0.8),
    ("held_out_norm", "keep", 0.8),
    ("held_out_norm", "clipped", 0.0),
    ("held_out_norm", "inverse", 0.0),
    ("against_list", "keep", 0.8),
    ("query_loss", "keep", 0.8),
    ("query_norm", "keep", 0.8),
    ("seller_labels", "keep", 0.8),
    ("", "inverse_propensity", 0.0),
    ("", "doubtful_groups", 0.0),
)
"""What access a allows: score, policy, strength."""
TRUSTING = (
    ("against_trusted", "keep", 0.9),
    ("against_trusted", "keep", 0.8),
    ("query_against_trusted", "keep", 0.8),
    ("seller_against_trusted", "keep", 0.8),
    ("correction", "keep", 0.8),
    ("correction_again", "keep", 0.8),
    ("correction_again", "believe", 0.0),
    ("", "counted_forward", 0.0),
    ("", "counted_posterior", 0.0),
    ("", "corrected", 0.5),
    ("", "corrected", 1.0),
    ("", "corrected_again", 1.0),
    ("", "settle", 0.0),
)
"""What needs the trusted lists of access b."""
RELABELLED = (
    "chance",
    "last_loss",
    "held_out_loss",
    "doubtful_groups",
    "against_trusted",
    "correction_again",
)
READ = (0.05, 0.2)
READ_AT_RANDOM = (0.1, 0.4)
"""Further shares for `chance`: twice what the others read."""
KEPT = (0.9, 0.7, 0.5, 0.3, 0.1)
WHOLE = (0, 1, 2)
"""Seeds of the runs on all lists, whose mean all others are compared with."""
RESCALED = (0.7, 0.5, 0.3)
"""The shares with which a run of as many epochs has a learning rate times 1 / share too.

`every_list` shows what such rates do without pruning.
"""

TAUGHT = (
    ("", "doubtful_groups", 0.0),
    ("", "settle", 0.0),
    ("correction_again", "believe", 0.0),
)
"""The policies of access b that train on the trusted lists too."""

FINALISTS = (("query_loss", "keep", 0.8), ("", "confident_forward", 0.0))
"""What is chosen among under access a, beside uniform, where `doubtful_groups` finds none: settled
on the development shops. Under access b it is TAUGHT."""
MARGIN = {"a": 1.0, "b": 0.0}
"""How many standard errors of the paired difference a choice must be above the first one by: above
uniform under access a, and above the first of TAUGHT under access b."""


def core(every: Iterable[Cell]) -> set[Cell]:
    """The cells of the weight track without which nothing is decided."""
    names = ("uniform", "clean", *tracks.RIVALS)
    arms = {*FINALISTS, ("", "doubtful_groups", 0.0)}
    return {
        cell
        for cell in every
        if cell.track == "weight"
        and (
            cell.taught or cell.policy in names or (cell.score, cell.policy, cell.strength) in arms
        )
    }


def weight(shop: int, fault: str) -> Iterator[Cell]:
    rate = faults.RATES[fault]
    for setting, seed in UNIFORM:
        yield Cell("weight", shop, fault, rate, "", "uniform", setting=setting, seed=seed)
    for name in tracks.RIVALS:
        yield Cell("weight", shop, fault, rate, "", name)
    for score, policy, strength in (*CONTROLS, *BLIND, *TRUSTING):
        if fault == "none" and policy in ("oracle_drop", "clean"):
            continue
        yield Cell("weight", shop, fault, rate, score, policy, strength)
    for score, policy, strength in TAUGHT:
        yield Cell("weight", shop, fault, rate, score, policy, strength, taught=True)


def find(shop: int, fault: str) -> Iterator[Cell]:
    if fault != "none":
        for score in scores.SCORES:
            yield Cell("find", shop, fault, faults.RATES[fault], score, "")


def relabel(shop: int, fault: str) -> Iterator[Cell]:
    if fault in faults.BIASING:
        for score in RELABELLED:
            for budget in sorted((*READ, *(READ_AT_RANDOM if score == "chance" else ()))):
                rate = faults.RATES[fault]
                yield Cell("relabel", shop, fault, rate, score, "", budget=budget)


def prune(shop: int, fault: str) -> Iterator[Cell]:
    if fault == "none":
        for seed in WHOLE:
            yield Cell("prune", shop, fault, 0.0, "", "random_lists", seed=seed, compute="equal")
        for policy in tracks.PRUNINGS:
            for budget in KEPT if policy != tracks.every_list.__name__ else ():
                for compute in ("equal", "proportional"):
                    yield Cell(
                        "prune", shop, fault, 0.0, "", policy, budget=budget, compute=compute
                    )
            for budget in RESCALED:
                setting = (*MAIN, model.Setting(*MAIN).rate / budget)
                yield Cell(
                    "prune", shop, fault, 0.0, "", policy, 0.0, setting, budget, 0, "rescaled"
                )


def _further(track: str, shop: int, fault: str) -> Iterator[Cell]:
    if fault == "none":
        for policy, strength in further.ARMS[track]:
            yield Cell(track, shop, fault, 0.0, "", policy, strength)


TRACKS: dict[str, Callable[[int, str], Iterator[Cell]]] = {
    "weight": weight,
    "find": find,
    "relabel": relabel,
    "prune": prune,
    **{track: functools.partial(_further, track) for track in further.ARMS},
}
