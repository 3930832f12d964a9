"""SIE-Bench: which importance score and policy makes a ranker better, under which fault.

    python benchmarks/run_sie_bench.py --workdir=runs/sie_bench --core --tracks weight
    python benchmarks/run_sie_bench.py --workdir=runs/sie_bench --shops 106 107 108 109 110 111 \\
        --tracks find relabel prune --out=benchmarks/results/sie_bench_tracks.json
    python benchmarks/run_sie_bench.py --workdir=runs/sie_bench \\
        --tracks attribute negatives shift tail --out=benchmarks/results/sie_bench_further.json

Measures the cells of the grid (`sie_bench/grid.py`, which has its arithmetic) that are not there
yet, shop after shop, and draws benchmarks/results/sie_bench.json together from all that are. Every
cell is a file in WORKDIR/cells, named by the hash of what it depends on: it may be killed at any
moment, and the same command goes on. Those of reported shops are kept in results/sie_bench_cells
too, from where another machine goes on. `--seconds` stops after so many; `--core` measures what
decisions need alone, and without it the first command goes on with all other policies. With
--shops=0..9 (development) give --out too: the result file is of the reported shops.
"""

import argparse
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from interleaved import machine
from same_results import commit_of
from sie_bench import cells, faults, further, grid, model, shops, summary, tracks
from sie_bench.evidence import Evidence

from sie_jax.files import write_json

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "sie_bench.json"


def declared(shop: int, fault: str, names: list[str], *, core: bool) -> list[cells.Cell]:
    """The cells of a shop and fault; `core`: of the track weight only what decisions need."""
    every = [cell for name in names for cell in grid.TRACKS[name](shop, fault)]
    needed = grid.core(every)
    return [cell for cell in every if not core or cell.track != "weight" or cell in needed]


def measuring(shop: int, fault: str, folder: Path) -> Callable[[cells.Cell], dict[str, Any]]:
    """What measures a cell of a shop and fault. folder: of the shops' files."""
    seen = Evidence(shops.load(shop, folder), fault)
    redundant = tracks.redundant(seen)

    def measure(cell: cells.Cell) -> dict[str, Any]:
        if cell.track in further.ARMS:
            return further.measure(cell, folder)
        return tracks.measure(cell, redundant if cell.track == "prune" else seen)

    return measure


SUMMARIES: dict[str, Callable[..., dict[str, Any]]] = {
    "weight": summary.weight,
    "find": summary.find,
    "relabel": summary.relabel,
    "prune": summary.prune,
    **{track: functools.partial(summary.compared, track=track) for track in further.ARMS},
}


def summed(workdir: Path, reported: list[int], asked: list[str]) -> dict[str, Any]:
    """What all cells of the reported shops that are there say of the tracks that are asked for."""
    every = [
        cell
        for shop in reported
        for fault in grid.FAULTS
        for cell in declared(shop, fault, [*grid.TRACKS], core=False)
    ]
    files = {cell: cells.stored(cell, workdir / "cells") for cell in every}
    found = {cell: file["values"] for cell, file in files.items() if file}
    return {
        **machine(),
        "commit": commit_of("HEAD"),
        "shops": reported,
        "queries": {"train": shops.TRAINING, "validation": shops.VALIDATION, "test": shops.TEST},
        "clean_validation_queries": shops.CLEAN,
        "rates": faults.RATES,
        "setting": model.Setting(*grid.MAIN)._asdict(),
        "cells": {
            "declared": len(every),
            "measured": len(found),
            "seconds": round(sum(file["seconds"] for file in files.values() if file)),
        },
        **{track: SUMMARIES[track](found, reported) for track in asked},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, default=Path("runs/sie_bench"))
    parser.add_argument("--shops", type=int, nargs="+", default=[*grid.REPORTED])
    parser.add_argument("--tracks", nargs="+", choices=grid.TRACKS, default=[*grid.TRACKS])
    parser.add_argument("--faults", nargs="+", choices=grid.FAULTS, default=[*grid.FAULTS])
    parser.add_argument("--core", action="store_true", help="of weight, only what decisions need")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    started = time.monotonic()
    for shop in arguments.shops:
        for fault in arguments.faults:
            asked = declared(shop, fault, arguments.tracks, core=arguments.core)
            todo = [one for one in asked if cells.stored(one, arguments.workdir / "cells") is None]
            if todo and time.monotonic() < started + arguments.seconds:
                measure = measuring(shop, fault, arguments.workdir / "shops")
                for cell in todo:
                    if time.monotonic() < started + arguments.seconds:
                        cells.measured(cell, arguments.workdir / "cells", measure)
                spent = time.monotonic() - started
                print(f"shop {shop}, {fault}: {len(todo)} cells, {spent:.0f} s in all", flush=True)
        if shop in grid.REPORTED:
            every = [
                cell
                for fault in grid.FAULTS
                for cell in declared(shop, fault, [*grid.TRACKS], core=False)
            ]
            cells.keep(shop, every, arguments.workdir / "cells")
    write_json(arguments.out, summed(arguments.workdir, arguments.shops, arguments.tracks))


if __name__ == "__main__":
    main()
