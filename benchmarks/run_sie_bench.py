"""SIE-Bench: which importance score and policy makes a ranker better, under which fault.

    python benchmarks/run_sie_bench.py --workdir=runs/sie_bench
    python benchmarks/run_sie_bench.py --workdir=runs/sie_bench --shops 0 1 2 3 --tracks weight

Measures the cells of the grid (`sie_bench/grid.py`, which has its arithmetic) that are not there
yet, shop after shop, and draws benchmarks/results/sie_bench.json together from all that are. Every
cell is a file in WORKDIR/cells, named by the hash of what it depends on: it may be killed at any
moment, and the same command goes on. `--seconds` stops after so many.
"""

import argparse
import time
from pathlib import Path

from sie_bench import cells, grid, shops, tracks
from sie_bench.evidence import Evidence

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "sie_bench.json"


def measure(shop: int, fault: str, names: list[str], workdir: Path, until: float) -> int:
    """Measures the missing cells of a shop and fault; gives how many there were."""
    todo = [
        cell
        for name in names
        for cell in grid.TRACKS[name](shop, fault)
        if cells.stored(cell, workdir / "cells") is None
    ]
    if not todo:
        return 0
    seen = Evidence(shops.load(shop, workdir / "shops"), fault)
    redundant = tracks.redundant(seen) if "prune" in names else seen
    for cell in todo:
        if time.monotonic() > until:
            break
        own = redundant if cell.track == "prune" else seen
        cells.measured(cell, workdir / "cells", lambda one, own=own: tracks.measure(one, own))
    return len(todo)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, default=Path("runs/sie_bench"))
    parser.add_argument("--shops", type=int, nargs="+", default=grid.REPORTED)
    parser.add_argument("--tracks", nargs="+", choices=grid.TRACKS, default=[*grid.TRACKS])
    parser.add_argument("--faults", nargs="+", choices=grid.FAULTS, default=[*grid.FAULTS])
    parser.add_argument("--seconds", type=float, default=float("inf"))
    arguments = parser.parse_args()
    started = time.monotonic()
    for shop in arguments.shops:
        for fault in arguments.faults:
            number = measure(
                shop, fault, arguments.tracks, arguments.workdir, started + arguments.seconds
            )
            if number:
                print(f"shop {shop}, {fault}: {number} cells, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
