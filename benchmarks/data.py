"""Data at a million pairs: preparing, streaming an epoch, peak memory, and what training waits for.

    python benchmarks/data.py --minilm=FOLDER          # 100 thousand and a million pairs, two cores
    python benchmarks/data.py                          # without the waiting of MiniLM's steps
    python benchmarks/data.py --rows=10_000,100_000 --out=/tmp/data.json

The embedded shop, written once to Parquet; of fewer pairs its first ones. Each step is a process of
its own: the table is prepared as a run prepares it (read, cleaned, split, a vocabulary trained,
tokenised, written), its texts are tokenised once more by themselves, and an epoch of the training
split goes through the loader that training reads from. Then a model trains on the prepared pairs
for some hundred steps, and its own log (speed.jsonl) says how long they waited for data.

`peak_mebibytes` is the resident memory of the process at most, the pages of files that it has
mapped included, which the system takes back where others need them; `peak_own_mebibytes` is what
is no file's, looked at twenty times a second; `imports_mebibytes` is what the process took before
its work began. `load_average` is the machine's, over a minute, before and after: seconds depend on
what else it does, and `cpu_seconds` much less. Leaves benchmarks/results/data.json. Linux only.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow.parquet as pq
from flax import nnx
from rich.console import Console
from transformers import BertConfig

from sie_jax.data import batches, preparing
from sie_jax.data.loading import PlannedBatches, iterate
from sie_jax.data.schema import ESCI_SCALE, RAW_COLUMNS
from sie_jax.data.section import DataConfig
from sie_jax.data.sources import synthetic, table
from sie_jax.devices import mesh as meshes
from sie_jax.files import read_json, write_json
from sie_jax.models import PairClassifier
from sie_jax.tasks.graded import Graded
from sie_jax.training import state as states
from sie_jax.training import steps
from sie_jax.training.checkpoints import RunCheckpoints
from sie_jax.training.cost import CostMeter
from sie_jax.training.logs import MetricsLog, read
from sie_jax.training.loop import fit
from sie_jax.training.observers import Observers
from sie_jax.training.run import Run
from sie_jax.training.section import TrainConfig

RESULTS = Path(__file__).parent / "results" / "data.json"
ROWS = (100_000, 1_000_000)
MAX_LENGTH, BATCH_SIZE = 32, 32
# as configs/quickstart.py has it
QUICKSTART = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
TRAINED_STEPS = {"quickstart": 600, "minilm": 60}
Figures = dict[str, Any]


def write_source(folder: Path, sizes: list[int]) -> None:
    """The first rows of one shop as Parquet, a file for each size."""
    shop = synthetic.read(queries=20_000, items_per_query=62, seed=0).table
    for rows in sizes:
        if shop.num_rows < rows:
            sys.exit(f"the shop has {shop.num_rows} rows, {rows} are asked for")
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(shop.slice(0, rows), folder / f"{rows}.parquet", row_group_size=65_536)


def prepare(folder: Path, rows: int) -> Figures:
    source = folder.parent / "source" / f"{rows}.parquet"
    began = time.perf_counter()
    read = table.read(
        str(source), columns={name: name for name in RAW_COLUMNS}, labels=ESCI_SCALE.names
    )
    done_reading = time.perf_counter()
    selection = preparing.select(read, DataConfig().rules)
    selected = time.perf_counter()
    preparing.store(selection, folder, DataConfig(max_length=MAX_LENGTH).encoding())
    return {
        "read_seconds": round(done_reading - began, 1),
        "select_seconds": round(selected - done_reading, 1),
        "store_seconds": round(time.perf_counter() - selected, 1),
        "kept": read_json(folder / "cleaning.json")["kept"],
    }


def rates(pairs: int, began: float, cpu: float) -> Figures:
    """Pairs a second since `began`, and a second of all cores' work since `cpu`."""
    return {
        "pairs": pairs,
        "pairs_per_second": round(pairs / (time.perf_counter() - began)),
        "pairs_per_cpu_second": round(pairs / (time.process_time() - cpu)),
    }


def tokenise(folder: Path, rows: int) -> Figures:
    """Every pair's texts to token ids, as `preparing.store` has them made."""
    prepared = preparing.load(folder)
    began, cpu, done = time.perf_counter(), time.process_time(), 0
    encoding = DataConfig(max_length=MAX_LENGTH).encoding()
    for encoded in preparing.encoded(prepared.pairs, prepared.tokenizer, encoding):
        done += encoded.num_rows
    return rates(done, began, cpu)


def planned(prepared: preparing.Prepared, limit: int | None = None) -> PlannedBatches:
    """The first batches of a training epoch, all where `limit` is None."""
    lengths = prepared.lengths["train"]
    plan = batches.epoch(
        lengths,
        seed=0,
        epoch=0,
        batch_size=BATCH_SIZE,
        boundaries=prepared.boundaries,
        rows=np.arange(len(lengths)),
    )
    return PlannedBatches(
        prepared.tokens("train"),
        [plan[:limit]],
        batch_size=BATCH_SIZE,
        pad_token_id=prepared.tokenizer.pad_token_id,
    )


def stream(folder: Path, rows: int) -> Figures:
    """One epoch of the training split, every row of which is counted once."""
    prepared = preparing.load(folder)
    made = planned(prepared)
    seen = np.zeros(len(prepared.lengths["train"]), np.int8)
    began, cpu = time.perf_counter(), time.process_time()
    for batch in iterate(made):
        seen[batch["row"][batch["mask"]]] += 1
    found = rates(len(seen), began, cpu)
    assert (seen == 1).all()
    return found


def train(folder: Path, model: str) -> Figures:
    """The share of a step's time in which it waits for data, as the run's own log has it."""
    prepared = preparing.load(folder)
    if model == "quickstart":
        config = BertConfig(vocab_size=len(prepared.tokenizer), **QUICKSTART)
        classifier = PairClassifier(config, num_labels=4, rngs=nnx.Rngs(0))
    else:
        classifier, _ = PairClassifier.from_pretrained(model, num_labels=4, rngs=nnx.Rngs(0))
    name = "quickstart" if model == "quickstart" else "minilm"
    total, mesh = TRAINED_STEPS[name], meshes.make()
    graphdef, params = nnx.split(classifier)
    schedule = TrainConfig(batch_size=BATCH_SIZE, learning_rate=1e-4, epochs=1).schedule()
    optimizer = schedule.optimizer(total_steps=total)
    run = folder / f"train-{name}"
    shutil.rmtree(run, ignore_errors=True)
    checkpoints = RunCheckpoints(run / "steps")
    fit(
        Run(name, 0, schedule),
        states.create(params, optimizer, mesh, seed=0),
        steps.weighted_step(Graded(graphdef, prepared.scale.gains), optimizer, mesh),
        planned(prepared, total),
        mesh=mesh,
        example_ids=np.arange(len(prepared.lengths["train"])),
        observers=Observers(
            checkpoints,
            MetricsLog(run / "metrics.jsonl"),
            CostMeter(run / "cost.json"),
            Console(quiet=True),
            checkpoint_every=total,
            log_every=total // 6,
        ),
    )
    checkpoints.close()
    # the first interval holds compilation
    logged = read(run / "speed.jsonl")[1:]
    return {
        "steps": total - total // 6,
        "step_seconds": round(float(np.mean([line["step_seconds"] for line in logged])), 5),
        "data_wait_share": round(float(np.mean([line["data_wait_share"] for line in logged])), 5),
        "largest_data_wait_share": round(max(line["data_wait_share"] for line in logged), 5),
    }


STEPS: dict[str, Callable[[Path, int], Figures]] = {
    "prepare": prepare,
    "tokenise": tokenise,
    "stream": stream,
}


def peak() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


@contextlib.contextmanager
def watched() -> Iterator[list[float]]:
    """A list of one number, which becomes the most memory in MiB that is no mapped file's."""
    seen, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            status = Path("/proc/self/status").read_text()
            (kilobytes,) = re.findall(r"RssAnon:\s+(\d+) kB", status)
            seen[0] = max(seen[0], round(int(kilobytes) / 1024, 1))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield seen
    done.set()
    thread.join()


def child(name: str, folder: Path, rows: int, model: str) -> None:
    """Runs one step in this process, and leaves what it took."""
    before, began, cpu = peak(), time.perf_counter(), time.process_time()
    with watched() as own:
        found = train(folder, model) if name == "train" else STEPS[name](folder, rows)
    figures = {
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "imports_mebibytes": before,
        "peak_mebibytes": peak(),
        "peak_own_mebibytes": own[0],
    }
    write_json(folder / "figures.json", found | figures)


def measured(name: str, folder: Path, rows: int = 0, model: str = "") -> Figures:
    """The figures of one step, of a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    command = [sys.executable, __file__, f"--step={name}", f"--folder={folder}"]
    subprocess.run([*command, f"--rows={rows}", f"--model={model}"], check=True)
    average = {"load_average": [round(load, 1), round(os.getloadavg()[0], 1)]}
    found: Figures = read_json(folder / "figures.json") | average
    print(name, rows or model, json.dumps(found), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default=",".join(map(str, ROWS)))
    parser.add_argument("--minilm", default="", help="a Hugging Face folder")
    parser.add_argument("--workdir", type=Path, default=Path("runs/data"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--model", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = [int(rows) for rows in arguments.rows.split(",")]
    if arguments.step == "source":
        write_source(arguments.folder, sizes)
        return
    if arguments.step:
        child(arguments.step, arguments.folder, sizes[0], arguments.model)
        return
    workdir = arguments.workdir.absolute()
    source = workdir / "source"
    if not all((source / f"{rows}.parquet").exists() for rows in sizes):
        command = [sys.executable, __file__, "--step=source", f"--folder={source}"]
        subprocess.run([*command, f"--rows={arguments.rows}"], check=True)
    results: Figures = {}
    for rows in sizes:
        folder = workdir / str(rows)
        shutil.rmtree(folder, ignore_errors=True)
        results[f"{rows} pairs"] = {name: measured(name, folder, rows) for name in STEPS}
    smallest, largest = (results[f"{rows} pairs"] for rows in (min(sizes), max(sizes)))
    for kind in ("peak", "peak_own"):
        results[f"{kind}_ratio"] = {
            name: round(largest[name][f"{kind}_mebibytes"] / smallest[name][f"{kind}_mebibytes"], 2)
            for name in smallest
        }
    trained = ["quickstart", *([arguments.minilm] if arguments.minilm else [])]
    results["training"] = {
        "quickstart" if model == "quickstart" else "minilm": measured(
            "train", workdir / str(max(sizes)), model=model
        )
        for model in trained
    }
    results["machine"] = {
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "platform": platform.machine(),
        "python": platform.python_version(),
    }
    write_json(arguments.out, results)


if __name__ == "__main__":
    main()
