"""How fast `python -m sie_jax.predict` is, what memory it takes, and what a kill costs.

    python benchmarks/predict.py --model=runs/quickstart/model --name=quickstart

Pairs of the generated shop in a CSV file. Throughput and peak resident memory of the whole process,
start and compilation included, on 2,000 and on 20,000 rows; then `kill -9` at random moments of
the larger one, over and over until a call ends, compared byte for byte with the uninterrupted one.
Appends the figures, under the name, to benchmarks/results/predict.json.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import pyarrow as pa
import pyarrow.csv

from sie_jax.data.sources import synthetic
from sie_jax.files import read_json, write_json

RESULTS = Path(__file__).parent / "results" / "predict.json"
SIZES = (2_000, 20_000)
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
    parser.add_argument("--name", required=True)
    parser.add_argument("--kills", type=int, default=5)
    arguments = parser.parse_args()
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
