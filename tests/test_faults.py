"""What may happen to a run from outside: what is lost, which is nothing finished, and what is said.

Each fault hits a real `train.py`, and the same command then has to end in the results of a run that
was left in peace, to the last bit.
"""

import contextlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import sie_jax
from sie_jax.files import read_json

ROOT = Path(sie_jax.__file__).parents[1]
TINY = """
from sie_jax.config import Config


def get_config():
    config = Config(name="tiny")
    config.data.synthetic.queries = 16
    config.data.synthetic.items_per_query = 6
    config.data.vocabulary_size = 500
    config.data.buckets = 1
    config.model.hidden_size = 8
    config.model.num_hidden_layers = 1
    config.model.num_attention_heads = 2
    config.model.intermediate_size = 8
    config.model.dropout = 0.1  # whose keys have to go on too
    config.train.batch_size = 8
    config.train.epochs = 4  # long enough to be met in the middle
    config.train.checkpoint_every = 5
    config.train.log_every = 1
    config.evaluation.resamples = 100
    config.evaluation.explained_queries = 0
    return config
"""
# what a forked process executes: `python train.py`, but for the imports, which are there already
PROGRAM = """
import os, runpy, sys
os.environ.update(environment)
os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
os.dup2(os.open(output + ".stdout", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
sys.argv = command
runpy.run_path(command[0], run_name="__main__")
"""


class Run:
    """A `train.py` that is under way."""

    def __init__(self, process: BaseProcess, output: Path) -> None:
        self.process, self._output = process, output

    def send(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    @property
    def stderr(self) -> str:
        return self._output.read_text()

    @property
    def stdout(self) -> str:
        return " ".join(self._output.with_name(f"{self._output.name}.stdout").read_text().split())

    def said(self) -> tuple[int | None, str]:
        """The exit code once it is at its end, and its last line on stderr."""
        self.process.join(300)
        error = self._output.read_text().strip()
        assert "Traceback" not in error, error
        return self.process.exitcode, error.split("\n")[-1]

    def wait(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 240
        while not done():
            assert self.process.is_alive(), self._output.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.005)


class Faults:
    """Starts runs of the tiny config in a workdir of its own."""

    def __init__(self, folder: Path, forks: Any) -> None:
        self.folder, self.workdir, self._forks, self._number = folder, folder / "work", forks, 0
        self.refused: tuple[int | None, str] | None = None  # what a second run was told
        (folder / "tiny.py").write_text(TINY)

    @contextlib.contextmanager
    def started(self, *flags: str, **environment: str) -> Iterator[Run]:
        config, workdir = f"--config={self.folder / 'tiny.py'}", f"--workdir={self.workdir}"
        output = self.folder / f"{self._number}.txt"
        self._number += 1
        names = {
            "command": [str(ROOT / "train.py"), config, workdir, *flags],
            "environment": environment,
            "output": str(output),
        }
        process = self._forks.Process(target=exec, args=(PROGRAM, names))
        process.start()
        try:
            yield Run(process, output)
        finally:
            process.kill()
            process.join()

    def ended(self) -> tuple[int | None, str]:
        """As `Run.said`, of a run that is left in peace."""
        with self.started() as run:
            return run.said()

    def steps(self, run: str) -> list[int]:
        """The steps of a run's checkpoints that are whole."""
        found = (self.workdir / "checkpoints" / run).glob("*/_CHECKPOINT_METADATA")
        return sorted(int(path.parent.name) for path in found if path.parent.name.isdigit())


@pytest.fixture(scope="module")
def forks() -> Any:
    """Processes that begin with everything imported."""
    environment = {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["train", "sie_jax.report.plots"])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        process = context.Process(target=int)  # the server starts with the first, and lives on
        process.start()
        process.join()
    return context


@pytest.fixture(scope="module")
def peace(tmp_path_factory: pytest.TempPathFactory, forks: Any) -> Faults:
    """A run that nothing happens to, but that another one tries to begin on its workdir."""
    faults = Faults(tmp_path_factory.mktemp("peace"), forks)
    with faults.started() as run:
        run.wait(lambda: bool(faults.steps("warmup")))
        faults.refused = faults.ended()
        assert run.said()[0] == 0
    return faults


@pytest.fixture
def faults(tmp_path: Path, forks: Any) -> Faults:
    return Faults(tmp_path, forks)


def assert_same(faults: Faults, peace: Faults) -> None:
    """All that a run measures, to the last bit; but for what time it took."""

    def measured(folder: Path) -> Any:
        metrics = read_json(folder / "metrics.json")
        for cost in metrics["cost"].values():
            del cost["seconds"]
        return metrics

    workdir, wanted = faults.workdir, peace.workdir
    assert measured(workdir) == measured(wanted)
    for name in ("metrics.jsonl", "model/model.safetensors", "audit.csv"):
        assert (workdir / name).read_bytes() == (wanted / name).read_bytes(), name
    assert pq.read_table(workdir / "importance.parquet").equals(
        pq.read_table(wanted / "importance.parquet")
    )


def test_a_second_run_on_the_workdir_refuses(peace: Faults) -> None:
    assert peace.refused == (
        2,
        f"error: {peace.workdir} is in use by another run: wait until it is done, or give "
        "another folder with --workdir",
    )


def test_a_run_killed_three_times_ends_in_the_same_bits(faults: Faults, peace: Faults) -> None:
    """While it prepares, in the middle of training, and while a checkpoint is written."""
    written = faults.workdir / "checkpoints"
    for moment in (
        lambda: (faults.workdir / ".data.tmp").exists(),
        lambda: len(faults.steps("uniform-0")) > 1,
        lambda: bool(list(written.glob("weighted-0/*-tmp"))),
    ):
        with faults.started() as run:
            run.wait(moment)
            run.send(signal.SIGKILL)
    assert not (faults.workdir / "metrics.json").exists()
    assert faults.ended()[0] == 0
    assert_same(faults, peace)


def test_sigterm_saves_the_step_and_the_same_command_goes_on_there(
    faults: Faults, peace: Faults
) -> None:
    with faults.started() as run:
        run.wait(lambda: bool(faults.steps("uniform-0")))
        run.send(signal.SIGTERM)
        code, line = run.said()
    step = faults.steps("uniform-0")[-1]
    assert (code, line.partition(" of ")[0]) == (
        143,
        f"stopped: run uniform-0 was asked to stop and did so after step {step}",
    )
    assert faults.ended()[0] == 0
    assert_same(faults, peace)


def test_a_broken_checkpoint_is_noticed_and_the_one_before_it_used(
    faults: Faults, peace: Faults
) -> None:
    with faults.started() as run:
        run.wait(lambda: len(faults.steps("weighted-0")) > 1)
        run.send(signal.SIGTERM)
        assert run.said()[0] == 143
    step = faults.steps("weighted-0")[-1]
    folder = faults.workdir / "checkpoints" / "weighted-0" / str(step)
    aside = folder.parent.with_name("weighted-0.broken")
    largest = max((path for path in folder.rglob("*") if path.is_file()), key=os.path.getsize)
    os.truncate(largest, 10)
    with faults.started() as run:
        assert run.said()[0] == 0
        assert (
            f"the checkpoint {folder} is broken ({largest.relative_to(folder)} is not what was "
            f"written): it is moved to {aside}, and the one before it is used"
        ) in run.stdout
    assert (aside / str(step)).is_dir()
    assert_same(faults, peace)


def test_a_full_disk_ends_in_one_line_and_loses_nothing(faults: Faults, peace: Faults) -> None:
    faults.workdir.mkdir()
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(faults.workdir)]
    if subprocess.run([*mount, "-o", "size=800k"], check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be made here: mounting takes root")
    try:
        assert faults.ended() == (
            2,
            "error: no space is left on the disk: free some space, then rerun the same command to "
            "resume",
        )
        assert faults.steps("warmup")  # it was full in the middle of training
        subprocess.run([*mount, "-o", "remount,size=100m"], check=True)
        assert faults.ended()[0] == 0
        assert_same(faults, peace)
    finally:
        subprocess.run(["umount", str(faults.workdir)], check=True)


def test_a_shard_that_vanishes_is_named_and_made_again(faults: Faults, peace: Faults) -> None:
    """In the middle of a run, and before the next one starts."""
    data = faults.workdir / "data"
    with faults.started() as run:
        run.wait(lambda: bool(faults.steps("uniform-0")))
        (shard,) = data.rglob("*train.array_record*")
        shard.unlink()
        code, line = run.said()
    assert (code, line.partition(" (")[0]) == (
        2,
        f"error: {data / 'tokens'}: token ids cannot be read",
    )
    assert shard.name in line
    saved = faults.steps("uniform-0")
    assert faults.ended() == (
        2,
        f"error: {shard} cannot be read (it is missing): restore it, or remove {data}; then the "
        "same command makes it again from the source, which must not have changed",
    )
    assert faults.steps("uniform-0") == saved
    shutil.rmtree(data)
    assert faults.ended()[0] == 0
    assert_same(faults, peace)


def test_of_two_processes_one_notices_that_the_other_is_stopped_hangs_or_is_lost(
    faults: Faults, peace: Faults
) -> None:
    def both(run: str, number: signal.Signals) -> tuple[list[tuple[int | None, str]], str]:
        """What two processes say when the second gets a signal after a new checkpoint of `run`.

        And all that the first says.
        """
        before = faults.steps(run)
        with socket.socket() as opened:
            opened.bind(("localhost", 0))
            address = f"localhost:{opened.getsockname()[1]}"
        environment = {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_HEARTBEAT_TIMEOUT_SECONDS": "10",
            "JAX_NUM_PROCESSES": "2",
        }
        with (
            faults.started("--distributed", **environment, JAX_PROCESS_ID="0") as first,
            faults.started("--distributed", **environment, JAX_PROCESS_ID="1") as second,
        ):
            first.wait(lambda: faults.steps(run) > before)
            second.send(number)
            said = [first.said()]
            if number is signal.SIGTERM:
                said.append(second.said())
            return said, first.stderr

    ((code, line), other), _ = both("warmup", signal.SIGTERM)
    assert (code, line) == other
    stopped = re.match(r"stopped: run (\S+) was asked to stop and did so after step (\d+) of", line)
    assert code == 143
    assert stopped, line
    assert faults.steps(stopped[1])[-1] == int(stopped[2])
    for run, number in (("uniform-0", signal.SIGSTOP), ("weighted-0", signal.SIGKILL)):
        ((code, line),), everything = both(run, number)
        if code == -signal.SIGABRT:  # JAX's heartbeats noticed it before what waits for the process
            assert "most likely indicates that another task died" in everything
        else:
            assert code == 4, everything
            assert line.startswith("error: process 0 of 2 cannot continue, because another")
    # what is there is whole: one process alone goes on from it, with the same batches
    assert faults.ended()[0] == 0
    losses, wanted = (
        {
            (line["run"], line["step"]): line["loss"]
            for line in map(json.loads, (one.workdir / "metrics.jsonl").read_text().splitlines())
            if "loss" in line
        }
        for one in (faults, peace)
    )
    assert losses.keys() == wanted.keys()
    # the sums over a batch are taken in another order, and Adam divides by what is small
    np.testing.assert_allclose(list(losses.values()), [wanted[step] for step in losses], rtol=1e-3)
