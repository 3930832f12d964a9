"""Tables of scores larger than memory: seconds, bytes on disk and peak memory of each step.

    python benchmarks/importance_table.py                   # 5 and 50 million rows, on two cores
    python benchmarks/importance_table.py --rows=1_000_000 --out=/tmp/importance_table.json

Two processes' parts of an importance table (ids as strings, five scores, weight), one after the
other; a table of five more scores in another order; the join of both; a pass over every row of
that, which checks each number against its formula; and the weights in a third order, as training
reads them, checked too. Each step is a process of its own. The same again with a tenth of the rows:
memory is bounded where the peaks are alike.

A step whose result lies in the working folder is not run again. The folder is removed at the end
unless --keep is given. Leaves benchmarks/results/importance_table.json.

`seconds` are of the wall clock, and depend on what else the machine does; `cpu_seconds` much less.
`peak_mebibytes` is the resident memory of the process at most; `imports_mebibytes` what it took
before its work began. `peak_scratch_bytes` is what its temporary files took on disk, looked at
once a second. Linux only.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sie_jax.files import read_json, write_json
from sie_jax.tables import joining, parts
from sie_jax.tables.provenance import Provenance

RESULTS = Path(__file__).parent / "results" / "importance_table.json"
SCORES = ("grad_norm", "loss", "el2n", "margin", "entropy")
MORE = tuple(f"{name}_1" for name in SCORES)
PROCESSES = 2
BATCH = 1 << 17
# odd primes that divide no power of ten: i ↦ (i · factor + 1) mod rows is then a permutation of a
# number of rows that is one
SCORED, TRAINED = 15_485_863, 32_452_843


def numbers(start: int, end: int) -> Iterator[np.ndarray]:
    """The row numbers from `start` to `end`, in batches."""
    for first in range(start, end, BATCH):
        yield np.arange(first, min(first + BATCH, end))


def ids(rows: np.ndarray) -> pa.Array:
    """The example ids of rows, strings."""
    return pc.binary_join_element_wise("row", pa.array(rows).cast(pa.string()), "-")


def values(rows: np.ndarray, name: str) -> np.ndarray:
    """A column of scores by row number: float32 in [0, 1), as good as random."""
    place = (*SCORES, *MORE, "weight").index(name)
    mixed = (rows.astype(np.uint64) * 16 + np.uint64(place)) * np.uint64(0x9E3779B97F4A7C15)
    return (mixed >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)


def origin(names: tuple[str, ...], seed: int) -> dict[str, Provenance]:
    return {
        name: Provenance(
            score=name, checkpoint="warmup/1000", seed=seed, data_version="0" * 64, config="0" * 64
        )
        for name in names
    }


def write(folder: Path, rows: int, process: int) -> int:
    """The parts of one process, rows in their order."""
    start, end = rows * process // PROCESSES, rows * (process + 1) // PROCESSES
    tables = (
        pa.table(
            {
                "example_id": ids(some),
                "query_id": pa.array(some // 20).cast(pa.string()),
                "item_id": pa.array(some * 7 % 1_000_003).cast(pa.string()),
                "label": pa.array((some % 4).astype(np.int32)),
                **{name: values(some, name) for name in (*SCORES, "weight")},
            }
        )
        for some in numbers(start, end)
    )
    parts.write_parts(
        folder / "importance",
        tables,
        process_index=process,
        process_count=PROCESSES,
        provenance=origin((*SCORES, "weight"), seed=0),
    )
    return end - start


def more(folder: Path, rows: int) -> int:
    """Five more scores, in another order."""
    orders = ((some * SCORED + 1) % rows for some in numbers(0, rows))
    tables = (
        pa.table({"example_id": ids(some), **{name: values(some, name) for name in MORE}})
        for some in orders
    )
    parts.write_parts(folder / "more", tables, process_index=0, provenance=origin(MORE, seed=1))
    return rows


def join(folder: Path, rows: int) -> int:
    joining.join(folder / "importance", folder / "more", folder / "joined", columns=MORE)
    return rows


def check(folder: Path, rows: int) -> int:
    """Reads every row of the joined table, and checks each id and score."""
    done = 0
    for batch in parts.batches(folder / "joined"):
        some = np.arange(done, done + batch.num_rows)
        assert batch["example_id"].equals(ids(some))
        for name in (*SCORES, *MORE, "weight"):
            np.testing.assert_array_equal(batch[name].to_numpy(), values(some, name))
        done += batch.num_rows
    assert done == rows
    return done


def weights(folder: Path, rows: int) -> int:
    """The weights in the order of a training run, checked."""

    def order() -> Iterator[np.ndarray]:
        return ((some * TRAINED + 1) % rows for some in numbers(0, rows))

    done = 0
    blocks = joining.in_order(folder / "joined", map(ids, order()), columns=["weight"])
    for block in blocks:
        some = np.arange(done, done + block.num_rows) * TRAINED + 1
        np.testing.assert_array_equal(block["weight"].to_numpy(), values(some % rows, "weight"))
        done += block.num_rows
    assert done == rows
    return done


# what to run → what it leaves
STEPS: dict[str, tuple[Callable[[Path, int], int], str]] = {
    "write, process 0": (lambda folder, rows: write(folder, rows, 0), "importance/part-00000-*"),
    "write, process 1": (lambda folder, rows: write(folder, rows, 1), "importance/part-00001-*"),
    "more scores": (more, "more/*"),
    "join": (join, "joined/*"),
    "read and check": (check, ""),
    "weights in order": (weights, ""),
}


def size(paths: Iterable[Path]) -> int:
    """Bytes of the files among these, of which some may go while this looks."""
    total = 0
    for path in paths:
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def peak() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def step(name: str, folder: Path, rows: int) -> None:
    """Runs one step in this process, and leaves what it took."""
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    run, left = STEPS[name]
    before, started, cpu = peak(), time.perf_counter(), time.process_time()
    done = run(folder, rows)
    seconds = time.perf_counter() - started
    found = {
        "rows": done,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "rows_per_cpu_second": round(done / (time.process_time() - cpu)),
        "bytes": size(folder.glob(left)) if left else 0,
        "imports_mebibytes": before,
        "peak_mebibytes": peak(),
    }
    write_json(folder / f"{name}.json", found)


def measure(folder: Path, rows: int) -> dict[str, Any]:
    """The figures of all steps."""
    scratch = folder / "scratch"
    for name in STEPS:
        result = folder / f"{name}.json"
        if not result.exists():
            shutil.rmtree(scratch, ignore_errors=True)  # left by a step that was killed
            scratch.mkdir(parents=True)
            if name == "join":
                shutil.rmtree(folder / "joined", ignore_errors=True)
            command = [sys.executable, __file__, f"--step={name}", f"--workdir={folder}"]
            largest = 0
            with subprocess.Popen(
                [*command, f"--rows={rows}"], env={**os.environ, "TMPDIR": str(scratch)}
            ) as child:
                while child.poll() is None:
                    largest = max(largest, size(scratch.rglob("*")))
                    time.sleep(1)
            if child.returncode:
                sys.exit(f"{name} of {rows} rows ended with {child.returncode}")
            write_json(result, {**read_json(result), "peak_scratch_bytes": largest})
        print(rows, name, json.dumps(read_json(result)), flush=True)
    return {name: read_json(folder / f"{name}.json") for name in STEPS}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--rows", type=int, default=50_000_000, help="a power of ten, or 5 times it"
    )
    parser.add_argument("--workdir", type=Path, default=Path("runs/importance_table"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--keep", action="store_true", help="leaves the working folder")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    workdir = arguments.workdir.absolute()
    if arguments.step:
        step(arguments.step, workdir, arguments.rows)
        return
    sizes = {
        str(rows): measure(workdir / str(rows), rows)
        for rows in (arguments.rows // 10, arguments.rows)
    }
    device = f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, {platform.machine()}"
    write_json(arguments.out, {"device": device, "pyarrow_threads": 1, "sizes": sizes})
    if not arguments.keep:
        shutil.rmtree(workdir)


if __name__ == "__main__":
    main()
