"""How fast `python -m sie_jax.predict` is, what memory it takes, and what a kill costs.

    python benchmarks/predict.py --model=runs/quickstart/model --name=quickstart
    python benchmarks/predict.py --model=runs/quickstart/model --starting [--before=CHECKOUT]

Pairs of the generated shop in a CSV file. Throughput and peak resident memory of the whole process,
start and compilation included, on 2,000 and on 20,000 rows; then `kill -9` at random moments of
the larger one, over and over until a call ends, compared byte for byte with the uninterrupted one.
Appends the figures, under the name, to benchmarks/results/predict.json.

With --starting: what importing costs, how many packages are needed for it, and the time from the
command's start until a table of one row is scored, with and without compiled programs at hand. Of
several runs the least, in seconds and in seconds of a processor; those of another checkout are
taken in turn with ours, so that both meet the same load.
"""

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import pyarrow as pa
import pyarrow.csv
from packaging.requirements import Requirement

from sie_jax.data.sources import synthetic
from sie_jax.files import read_json, write_json

RESULTS = Path(__file__).parent / "results" / "predict.json"
SIZES = (2_000, 20_000)
TRIES = 4
# what is imported, with the packages that are to be installed for it
IMPORTS = {
    "jax": ("jax",),
    "sie_jax.per_example": ("jax",),
    "sie_jax.importance": ("jax", "jaxtyping"),
    "sie_jax.serving": ("sie_jax",),
}
# runs the command and says what memory it took at most, in MiB
MEASURED = """
import resource, sys
from sie_jax.commands import predict
code = predict.entry(sys.argv)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
sys.exit(code)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--name", default="quickstart")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--starting", action="store_true")
    parser.add_argument("--before", type=Path)
    arguments = parser.parse_args()
    if arguments.starting:
        trees = {"now": Path(__file__).parents[1]}
        if arguments.before is not None:
            trees = {"before": arguments.before.absolute(), **trees}
        write_starting(arguments.model.absolute(), trees)
        return
    found: dict[str, Any] = {"device": jax.devices()[0].device_kind}
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            pairs = Path(folder) / f"pairs-{size}.csv"
            table = synthetic.read(queries=size // 20 + 1, items_per_query=20, seed=5).table
            pa.csv.write_csv(table.slice(0, size).select(["query", "title"]), pairs)
            output = pairs.with_suffix(".parquet")
            started = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", MEASURED, *flags(arguments.model, pairs, output)],
                check=True,
                capture_output=True,
                text=True,
            )
            seconds = time.perf_counter() - started
            found[f"{size} rows"] = {
                "seconds": round(seconds, 2),
                "pairs_per_second": round(size / seconds, 1),
                "peak_mebibytes": round(float(done.stdout.split()[-1]), 1),
            }
        if arguments.kills:
            found["kills"] = killed(arguments.model, pairs, output, seconds, arguments.kills)
    results = read_json(RESULTS) if RESULTS.exists() else {}
    write_json(RESULTS, {**results, arguments.name: found})
    print(found)


def write_starting(model: Path, trees: dict[str, Path]) -> None:
    found: dict[str, Any] = {
        name: {"device": jax.devices()[0].device_kind, "jax": jax.__version__, "imports": {}}
        for name in trees
    }
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        (folder / "pairs.csv").write_text("query,title\nred shoes,strider red sneakers\n")
        paths = flags(model, folder / "pairs.csv", folder / "scored.parquet")
        command = ["-m", "sie_jax.predict", *paths]
        for module, packages in IMPORTS.items():
            for name, cost in least(["-c", f"import {module}"], trees).items():
                found[name]["imports"][module] = {"packages": len(needed(packages)), **cost}
        for compiled in ("nothing", "all"):
            cache = folder / "compiled" if compiled == "all" else None
            if cache:
                least(command, trees, cache, tries=1)
            for name, cost in least(command, trees, cache).items():
                found[name][f"first row, {compiled} compiled"] = cost
    results = read_json(RESULTS) if RESULTS.exists() else {}
    write_json(RESULTS, {**results, "starting": found})
    print(found)


def least(
    command: list[str], trees: dict[str, Path], cache: Path | None = None, tries: int = TRIES
) -> dict[str, dict[str, float]]:
    """The least seconds, and seconds of a processor, that Python takes for a command in each tree.

    cache: where compiled programs are kept; None keeps none.
    """
    shared = {name: value for name, value in os.environ.items() if "COMPILATION" not in name}
    if cache is not None:
        shared["JAX_COMPILATION_CACHE_DIR"] = str(cache)
        shared["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    seconds: dict[str, list[float]] = {name: [] for name in trees}
    of_processor: dict[str, list[float]] = {name: [] for name in trees}
    for _ in range(tries):
        for name, tree in trees.items():
            before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run(
                [sys.executable, *command],
                check=True,
                capture_output=True,
                env=shared | {"PYTHONPATH": str(tree)},
                cwd=tree,
            )
            seconds[name].append(time.perf_counter() - started)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            of_processor[name].append(spent)
    return {
        name: {
            "seconds": round(min(seconds[name]), 2),
            "processor_seconds": round(min(of_processor[name]), 2),
        }
        for name in trees
    }


def needed(names: Iterable[str]) -> set[str]:
    """The packages that these ask for, themselves included."""
    found, todo = set[str](), set(names)
    while todo:
        name = todo.pop()
        found.add(name)
        asked = map(Requirement, metadata.requires(name) or ())
        here = [one for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]
        todo |= {one.name.lower().replace("_", "-") for one in here} - found
    return found


def flags(model: Path, pairs: Path, output: Path) -> list[str]:
    return [f"--model={model}", f"--input={pairs}", f"--output={output}"]


def killed(model: Path, pairs: Path, whole: Path, seconds: float, times: int) -> dict[str, Any]:
    """Kills the command at random moments, lets it end, and compares its output with `whole`."""
    output, generator, at = whole.with_name("killed.parquet"), random.Random(0), []
    command = [sys.executable, "-m", "sie_jax.predict", *flags(model, pairs, output)]
    for _ in range(times):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        moment = generator.uniform(0.6, 0.95) * seconds  # before that it starts and compiles
        try:
            process.wait(moment)
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            parts = len(list(output.parent.glob("killed.parquet.parts/part-*")))
            at.append({"seconds": round(moment, 2), "parts_kept": parts})
    subprocess.run(command, check=True, capture_output=True)
    return {"killed_at": at, "same_bytes": output.read_bytes() == whole.read_bytes()}


if __name__ == "__main__":
    main()
