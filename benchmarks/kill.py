"""Does a run that is killed three times end in the same numbers as one that is not?

    python benchmarks/kill.py                 # a few minutes on two cores
    python benchmarks/kill.py --seed=1 --out=benchmarks/results/kill.json

Runs `train.py --config=configs/quickstart.py`, made smaller by flags, once in peace. Then again in
another workdir, where the process gets SIGKILL at a random moment of each of three phases
(everything up to importance.parquet, the uniform run, the weighted run) and the same command is
given again. Compares the results to the last digit; exits 1 where one differs.
"""

import argparse
import datetime
import itertools
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pyarrow.parquet as pq

ROOT = Path(__file__).parent.parent
SMALL = (
    "--config.data.synthetic.queries=150",
    "--config.train.epochs=3",
    "--config.train.checkpoint_every=20",
    "--config.importance.warmup_epochs=1",
    "--config.model.dropout=0.1",  # so that the dropout keys must resume too
)
# the files that end the phases
PHASES = ("importance.parquet", "predictions/uniform-0.parquet", "predictions/weighted-0.parquet")


class Process:
    """One `train.py`, its output kept in a file."""

    def __init__(self, workdir: Path, output: Path) -> None:
        command = [sys.executable, "train.py", "--config=configs/quickstart.py", *SMALL]
        self._output = output
        with output.open("w", encoding="utf-8") as file:
            self._process = subprocess.Popen(
                [*command, f"--workdir={workdir}"], cwd=ROOT, stdout=file, stderr=file
            )
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started

    @property
    def last_line(self) -> str:
        lines = self._output.read_text(encoding="utf-8").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def wait_until(self, done: Callable[[], bool]) -> bool:
        """True once `done()`; False where the process ends before that."""
        while not done():
            if self._process.poll() is not None:
                return False
            time.sleep(0.02)
        return True

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def finish(self) -> None:
        if self._process.wait():
            sys.exit(f"train.py failed: {self._output.read_text(encoding='utf-8')}")


def in_peace(workdir: Path, output: Path) -> tuple[float, list[float]]:
    """Gives the seconds of the whole run and those of each phase."""
    process = Process(workdir, output)
    ends = [0.0]
    for name in PHASES:
        process.wait_until(lambda name=name: (workdir / name).exists())  # type: ignore[misc]  # a default binds the loop's variable
        ends.append(process.seconds)
    process.finish()
    return process.seconds, [end - start for start, end in itertools.pairwise(ends)]


def killed(
    workdir: Path, output: Path, phases: list[float], draw: random.Random
) -> tuple[float, list[dict[str, Any]]]:
    """Gives the seconds of all processes together and what was killed when."""
    kills: list[dict[str, Any]] = []
    total = 0.0
    for begin, phase, seconds in zip((None, *PHASES), PHASES, phases, strict=False):
        process = Process(workdir, output)
        alive = begin is None or process.wait_until(lambda begin=begin: (workdir / begin).exists())  # type: ignore[misc]  # as above
        until = process.seconds + draw.uniform(0, 0.9) * seconds
        alive = alive and process.wait_until(lambda: process.seconds >= until)  # noqa: B023 - called at once
        process.kill()
        total += process.seconds
        kills.append(
            {
                "before": phase,
                "after_seconds": round(process.seconds, 2),
                "was_running": alive,
                "last_line": process.last_line,
                "newest_checkpoints": newest_checkpoints(workdir),
            }
        )
        print(json.dumps(kills[-1]), flush=True)
    process = Process(workdir, output)
    process.finish()
    return total + process.seconds, kills


def newest_checkpoints(workdir: Path) -> dict[str, int]:
    """The last step of each run that is on disk."""
    found: dict[str, int] = {}
    for path in sorted((workdir / "checkpoints").glob("*/*")):
        if path.name.isdecimal():
            found[path.parent.name] = max(found.get(path.parent.name, 0), int(path.name))
    return found


def compare(ours: Path, theirs: Path) -> dict[str, bool]:
    """What is equal to the last digit."""
    mine, other = (json.loads((folder / "metrics.json").read_text()) for folder in (ours, theirs))

    def counts(metrics: dict[str, Any], name: str) -> dict[str, int]:
        return {run: cost[name] for run, cost in metrics["cost"].items()}

    tables = [pq.read_table(folder / "importance.parquet") for folder in (ours, theirs)]
    return {
        "rows": mine["rows"] == other["rows"],
        "test": mine["test"] == other["test"],
        "examples": counts(mine, "examples") == counts(other, "examples"),
        "importance.parquet": tables[0].equals(tables[1]),
        "model/model.safetensors": (ours / "model" / "model.safetensors").read_bytes()
        == (theirs / "model" / "model.safetensors").read_bytes(),
    }


def costs(workdir: Path) -> dict[str, float]:
    metrics = json.loads((workdir / "metrics.json").read_text())
    return {run: round(cost["seconds"], 2) for run, cost in metrics["cost"].items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "kill.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        peace, war = Path(folder) / "peace", Path(folder) / "war"
        seconds, phases = in_peace(peace, Path(folder) / "peace.txt")
        print(f"in peace: {seconds:.1f} s, phases {[round(one, 1) for one in phases]}", flush=True)
        draw = random.Random(options.seed)
        killed_seconds, kills = killed(war, Path(folder) / "war.txt", phases, draw)
        result = {
            "command": f"train.py --config=configs/quickstart.py {' '.join(SMALL)}",
            "seed": options.seed,
            "kills": kills,
            "equal": compare(peace, war),
            "seconds": {"in_peace": round(seconds, 1), "killed": round(killed_seconds, 1)},
            "cost_seconds": {"in_peace": costs(peace), "killed": costs(war)},
            "device": f"{jax.device_count()} × {jax.devices()[0].device_kind}, "
            f"{os.cpu_count()} cores, {platform.machine()}",
            "jax": jax.__version__,
            "date": datetime.date.today().isoformat(),
        }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    if not all(result["equal"].values()) or not all(kill["was_running"] for kill in kills):
        sys.exit(1)


if __name__ == "__main__":
    main()
