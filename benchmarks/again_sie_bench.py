"""Measures cells of SIE-Bench that are kept once more, from nothing, and names what differs.

    python benchmarks/again_sie_bench.py --shop=113 --fault=mild

Takes the cells of a shop and fault that decisions need, as results/sie_bench_cells has them; their
shop is made anew too. Leaves benchmarks/results/sie_bench_again.json, with the date of either, and
ends with 1 where a number differs.
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from interleaved import machine
from run_sie_bench import ROOT, declared, measuring
from same_results import commit_of
from sie_bench import cells, faults, grid, summary

from sie_jax.files import write_json


def kept_since(shop: int, hashes: list[str]) -> str:
    """The date of the first commit whose file of the shop has cells of these hashes."""
    file = (cells.KEPT / f"{shop}.json.gz").relative_to(ROOT)
    log = _git("log", "--format=%H %cs", "--reverse", "--", str(file)).decode()
    for line in log.splitlines():
        commit, date = line.split()
        stored = json.loads(gzip.decompress(_git("show", f"{commit}:{file}")))
        if {*hashes} <= stored.keys():
            return date
    return ""


def _git(*words: str) -> bytes:
    return subprocess.check_output(["git", *words], cwd=ROOT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shop", type=int, required=True)
    parser.add_argument("--fault", choices=grid.FAULTS, required=True)
    parser.add_argument("--out", type=Path, default=cells.KEPT.parent / "sie_bench_again.json")
    arguments = parser.parse_args()
    rows, done = [], []
    with tempfile.TemporaryDirectory() as empty:
        measure = measuring(arguments.shop, arguments.fault, Path(empty))
        for cell in declared(arguments.shop, arguments.fault, ["weight"], core=True):
            if (before := cells.stored(cell, Path(empty))) is None:
                continue
            now = json.loads(json.dumps(measure(cell)))
            rows.append(
                {
                    "cell": summary.name_of(cell),
                    "seed": cell.seed,
                    "equal": now == before["values"],
                    "test": {one: of["test"] for one, of in now.items() if one in summary.ACCESSES},
                }
            )
            done.append(cell)
            print(rows[-1], flush=True)
    found = {
        **machine(),
        "commit": commit_of("HEAD"),
        "shop": arguments.shop,
        "fault": arguments.fault,
        "kept_since": kept_since(arguments.shop, [cell.hash for cell in done]),
        "rate": faults.RATES[arguments.fault],
        "cells": rows,
    }
    write_json(arguments.out, found)
    sys.exit(not rows or not all(row["equal"] for row in rows))


if __name__ == "__main__":
    main()
