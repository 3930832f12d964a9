"""Does a run that is killed twenty times lose nothing and end with the same numbers?

    python benchmarks/kill.py                 # some three minutes of CPU time
    python benchmarks/kill.py --seed=1 --out=benchmarks/results/kill.json

Runs a small `train.py` twice in peace: once to compile what all runs share, once to see how long
each phase takes. Then again in another workdir, where the process gets SIGKILL at twenty random
moments spread over all phases, four of them while a checkpoint is half written, and the same
command is given after each. Every kill is recorded with its phase, the checkpoints before and after
it, and the steps that have to be taken again. Compares the results to the last bit; exits 1 where
one differs, or where anything that was finished is gone.

The processes are forked from one that has imported everything, which saves most of their start.
"""

import argparse
import datetime
import json
import multiprocessing
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pyarrow.parquet as pq

from sie_jax.training import logs

ROOT = Path(__file__).parent.parent
CONFIG = """
from sie_jax.config import Config


def get_config():
    config = Config(name="kill")
    config.data.synthetic.queries = 16
    config.data.synthetic.items_per_query = 6
    config.data.vocabulary_size = 500
    config.data.buckets = 1
    config.model.hidden_size = 8
    config.model.num_hidden_layers = 1
    config.model.num_attention_heads = 2
    config.model.intermediate_size = 8
    config.model.dropout = 0.1
    config.pretrain.steps = 20
    config.pretrain.batch_size = 8
    config.pretrain.evaluate_every = 10
    config.importance.warmup_epochs = 2
    config.train.batch_size = 8
    config.train.epochs = 4
    config.train.checkpoint_every = 5
    config.train.log_every = 1
    config.evaluation.resamples = 100
    return config
"""
ENVIRONMENT = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": str(ROOT),
}
# what a forked process executes: `python train.py`, but for the imports
PROGRAM = """
import os, runpy, sys
for stream in (1, 2):
    os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
sys.argv = command
runpy.run_path(command[0], run_name="__main__")
"""
# each phase with the stage that ends it, and how many kills it gets beside those of checkpoint
# writes; the warm-up ends within the stage score, at the first part of its passes
PHASES = {
    "prepare": ("prepare", 2),
    "pretrain": ("pretrain", 2),
    "warm-up": ("score", 2),
    "score": ("score", 2),
    "uniform training": ("train/uniform-0", 3),
    "weighted training": ("train/weighted-0", 3),
    "evaluation and report": ("evaluate", 2),
}
WRITES = ("pretrain", "warm-up", "uniform training", "weighted training")


class Process:
    """One `train.py`, its output kept in a file."""

    def __init__(self, workdir: Path) -> None:
        self.workdir, self._output = workdir, workdir.with_suffix(".txt")
        self._output.write_text("")
        config = workdir.parent / "kill.py"
        command = [str(ROOT / "train.py"), f"--config={config}", f"--workdir={workdir}"]
        names = {"command": command, "output": str(self._output)}
        context = multiprocessing.get_context("forkserver")
        self._process = context.Process(target=exec, args=(PROGRAM, names))
        self._started = time.perf_counter()
        self._process.start()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    @property
    def last_line(self) -> str:
        lines = self._output.read_text(encoding="utf-8").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def wait_until(self, done: Callable[[], bool]) -> None:
        """Returns once `done()`, or at the end of the process."""
        while self.alive and not done():
            time.sleep(0.002)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def finish(self) -> None:
        self._process.join()
        if self._process.exitcode:
            sys.exit(f"train.py failed: {self._output.read_text(encoding='utf-8')}")


def ended(workdir: Path, phase: str) -> bool:
    stage, _ = PHASES[phase]
    # the parts of passes are removed once the stage is done
    passes_began = phase == "warm-up" and (workdir / "scratch" / "score").exists()
    return passes_began or marker(workdir / "stages" / f"{stage}.json")["done"]


def marker(path: Path) -> dict[str, Any]:
    """What a stage says of itself; of one that has not begun, that it is not done."""
    return json.loads(path.read_text("utf-8")) if path.exists() else {"done": False, "files": {}}


def phase_now(workdir: Path) -> str:
    return next((phase for phase in PHASES if not ended(workdir, phase)), "done")


def in_peace(workdir: Path) -> tuple[float, dict[str, float]]:
    """Gives the seconds of the whole run and those of each phase."""
    process, seconds, before = Process(workdir), {}, 0.0
    for phase in PHASES:
        process.wait_until(lambda phase=phase: ended(workdir, phase))  # type: ignore[misc]  # a default binds the loop's variable
        seconds[phase], before = process.seconds - before, process.seconds
    process.finish()
    return process.seconds, seconds


def kill_once(
    workdir: Path, phase: str, delay: float, *, write: bool
) -> tuple[float, dict[str, Any]]:
    """Starts the run and kills it in a phase: in a checkpoint write, or after a delay.

    The delay counts from where the phase begins, or from the start where it has begun already. The
    end of the phase kills too.
    """
    before, files = newest_checkpoints(workdir), finished_files(workdir)
    names = list(PHASES)
    earlier = names[: names.index(phase)]
    process = Process(workdir)
    process.wait_until(lambda: all(ended(workdir, one) for one in earlier))
    if write:
        process.wait_until(lambda: half_written(workdir) or ended(workdir, phase))
    else:
        until = process.seconds + delay
        process.wait_until(lambda: process.seconds >= until or ended(workdir, phase))
    was_running = process.alive
    process.kill()
    after = newest_checkpoints(workdir)
    reached = steps_reached(workdir)
    return process.seconds, {
        "phase": phase_now(workdir),
        "checkpoint_half_written": half_written(workdir),
        "after_seconds": round(process.seconds, 2),
        "was_running": was_running,
        "last_line": process.last_line,
        "newest_checkpoints_before": before,
        "newest_checkpoints_after": after,
        "steps_to_take_again": {
            run: step - after.get(run, 0)
            for run, step in reached.items()
            if step > after.get(run, 0)
        },
        "finished_files": len(finished_files(workdir)),
        "finished_files_gone": sorted(files - finished_files(workdir)),
    }


def killed(
    workdir: Path, seconds: dict[str, float], draw: random.Random
) -> tuple[float, list[dict[str, Any]]]:
    """Gives the seconds of all processes together and what was killed when."""
    kills: list[dict[str, Any]] = []
    total = 0.0
    for phase, (_, number) in PHASES.items():
        for turn in range(number + (phase in WRITES)):
            delay = draw.uniform(0, 0.8) * seconds[phase]
            taken, kill = kill_once(
                workdir, phase, delay, write=phase in WRITES and turn == number - 1
            )
            total += taken
            kills.append(kill)
            print(json.dumps(kill), flush=True)
    process = Process(workdir)
    process.finish()
    return total + process.seconds, kills


def half_written(workdir: Path) -> bool:
    """Whether there is a checkpoint that Orbax has begun and not committed."""
    return any((workdir / "checkpoints").glob("*/steps/*-tmp"))


def newest_checkpoints(workdir: Path) -> dict[str, int]:
    """The last step of each run of which a whole checkpoint is on disk."""
    found: dict[str, int] = {}
    for path in (workdir / "checkpoints").glob("*/steps/*/_CHECKPOINT_METADATA"):
        run, _, step = path.parts[-4:-1]
        if step.isdecimal():
            found[run] = max(found.get(run, 0), int(step))
    return dict(sorted(found.items()))


def steps_reached(workdir: Path) -> dict[str, int]:
    """The last step of each run whose loss was logged."""
    found: dict[str, int] = {}
    for log in (workdir / "checkpoints").glob("*/metrics.jsonl"):
        for record in logs.read(log):  # the end of a log may be torn by the kill
            found[record["run"]] = max(found.get(record["run"], 0), record["step"])
    return found


def finished_files(workdir: Path) -> set[str]:
    """Every file of a stage that is done."""
    markers = [marker(path) for path in (workdir / "stages").rglob("*.json")]
    return {
        name
        for one in markers
        for name in one["files"]
        if one["done"] and (workdir / name).is_file()
    }


def compare(ours: Path, theirs: Path) -> dict[str, bool]:
    """What is equal to the last bit."""
    mine, other = (json.loads((folder / "metrics.json").read_text()) for folder in (ours, theirs))

    def counts(metrics: dict[str, Any], name: str) -> dict[str, int]:
        return {run: cost[name] for run, cost in metrics["cost"].items()}

    tables = [pq.read_table(folder / "importance.parquet") for folder in (ours, theirs)]
    same_bytes = ("metrics.jsonl", "pretraining/model/model.safetensors", "model/model.safetensors")
    return {
        "rows": mine["rows"] == other["rows"],
        "test": mine["test"] == other["test"],
        "examples": counts(mine, "examples") == counts(other, "examples"),
        "importance.parquet": tables[0].equals(tables[1]),
        **{name: (ours / name).read_bytes() == (theirs / name).read_bytes() for name in same_bytes},
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
        os.environ.update(ENVIRONMENT, JAX_COMPILATION_CACHE_DIR=f"{folder}/compiled")
        multiprocessing.get_context("forkserver").set_forkserver_preload(
            ["sie_jax.recipes.relevance", "sie_jax.report.plots"]
        )
        (Path(folder) / "kill.py").write_text(CONFIG)
        first, peace, war = (Path(folder) / name for name in ("first", "peace", "war"))
        Process(first).finish()
        seconds, phases = in_peace(peace)
        rounded = {phase: round(one, 1) for phase, one in phases.items()}
        print(f"in peace: {seconds:.1f} s, of these {rounded}", flush=True)
        killed_seconds, kills = killed(war, phases, random.Random(options.seed))
        result = {
            "config": CONFIG.strip().split("\n"),
            "seed": options.seed,
            "kills": kills,
            "most_steps_to_take_again": max(
                (step for kill in kills for step in kill["steps_to_take_again"].values()), default=0
            ),
            "equal": compare(peace, war),
            "seconds": {"in_peace": round(seconds, 1), "killed": round(killed_seconds, 1)},
            "phase_seconds": rounded,
            "cost_seconds": {"in_peace": costs(peace), "killed": costs(war)},
            "device": f"{jax.device_count()} × {jax.devices()[0].device_kind}, "
            f"{os.cpu_count()} cores, {platform.machine()}",
            "jax": jax.__version__,
            "date": datetime.date.today().isoformat(),
        }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({name: result[name] for name in ("equal", "most_steps_to_take_again")}))
    lost = [path for kill in kills for path in kill["finished_files_gone"]]
    if lost or not all(result["equal"].values()) or not all(kill["was_running"] for kill in kills):
        sys.exit(1)


if __name__ == "__main__":
    main()
