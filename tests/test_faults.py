"""Faults that hit a run from outside: kills, broken files, a full disk, lost processes.

Each fault hits a real `train.py`. The same command must then give the results of an undisturbed
run, to the last bit.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import workdirs
from running import Commands, Process
from workdirs import assert_same_results

pytestmark = pytest.mark.slow

FIELDS = {
    "data.synthetic.queries": 16,
    "data.synthetic.items_per_query": 6,
    "model.dropout": 0.1,  # its keys have to be resumed too
    "train.epochs": 4,  # long enough to be hit in the middle
    "train.checkpoint_every": 5,
    "train.log_every": 1,
}


class Faults:
    """Starts runs of one config in a workdir of its own."""

    def __init__(self, folder: Path, forks: Any) -> None:
        self.workdir, self._commands = folder / "work", Commands(folder, forks, FIELDS)
        self.told: tuple[int | None, str] = (None, "")  # an exit code and the line with it

    @contextmanager
    def started(self, *flags: str, **environment: str) -> Iterator[Process]:
        given = (self._commands.config, f"--workdir={self.workdir}", *flags)
        with self._commands.started(*given, environment=environment) as run:
            yield run

    def ended(self) -> tuple[int | None, str]:
        """Gives what an undisturbed run said at its end."""
        with self.started() as run:
            return run.said()

    def steps(self, run: str) -> list[int]:
        """The steps of a run's checkpoints that are whole."""
        return workdirs.steps(self.workdir, run)


@pytest.fixture(scope="module")
def peace(tmp_path_factory: pytest.TempPathFactory, forks: Any) -> Faults:
    """An undisturbed run; a second run that was started on its workdir was told `told`."""
    faults = Faults(tmp_path_factory.mktemp("peace"), forks)
    with faults.started() as run:
        run.wait(lambda: bool(faults.steps("warmup")))
        faults.told = faults.ended()
        assert run.said()[0] == 0
    return faults


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, forks: Any) -> Faults:
    """A run that got SIGTERM while it trained `uniform-0`; `told` is what it said then."""
    faults = Faults(tmp_path_factory.mktemp("stopped"), forks)
    with faults.started() as run:
        run.wait(lambda: bool(faults.steps("uniform-0")))
        run.send(signal.SIGTERM)
        faults.told = run.said()
    return faults


@pytest.fixture
def faults(tmp_path: Path, forks: Any) -> Faults:
    return Faults(tmp_path, forks)


@pytest.fixture
def resumed(faults: Faults, stopped: Faults) -> Faults:
    """A copy of the stopped run's workdir: the stages before it do not run in every test."""
    shutil.copytree(stopped.workdir, faults.workdir)
    return faults


def test_a_second_run_on_the_workdir_refuses(peace: Faults) -> None:
    assert peace.told == (
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
        lambda: bool(list(written.glob("weighted-0/steps/*-tmp"))),
    ):
        with faults.started() as run:
            run.wait(moment)
            run.send(signal.SIGKILL)
    assert not (faults.workdir / "metrics.json").exists()
    assert faults.ended()[0] == 0
    assert_same_results(faults.workdir, peace.workdir)


def test_sigterm_saves_the_step_and_the_same_command_goes_on_there(
    stopped: Faults, resumed: Faults, peace: Faults
) -> None:
    step = stopped.steps("uniform-0")[-1]
    code, line = stopped.told
    assert (code, line.partition(" of ")[0]) == (
        143,
        f"stopped: run uniform-0 was asked to stop and stopped after step {step}",
    )
    assert resumed.ended()[0] == 0
    assert_same_results(resumed.workdir, peace.workdir)


def test_a_broken_checkpoint_is_noticed_and_the_one_before_it_used(
    resumed: Faults, peace: Faults
) -> None:
    with resumed.started() as run:
        run.wait(lambda: len(resumed.steps("weighted-0")) > 1)
        run.send(signal.SIGTERM)
        assert run.said()[0] == 143
    step = resumed.steps("weighted-0")[-1]
    folder = resumed.workdir / "checkpoints" / "weighted-0" / "steps" / str(step)
    aside = folder.parent.with_name("steps.broken")
    largest = max((path for path in folder.rglob("*") if path.is_file()), key=os.path.getsize)
    os.truncate(largest, 10)
    with resumed.started() as run:
        code, out, _ = run.done()
    assert code == 0
    assert (
        f"the checkpoint {folder} is broken ({largest.relative_to(folder)} is not what was "
        f"written): it is moved to {aside}, and the one before it is used"
    ) in out
    assert (aside / str(step)).is_dir()
    assert_same_results(resumed.workdir, peace.workdir)


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
        assert_same_results(faults.workdir, peace.workdir)
    finally:
        subprocess.run(["umount", str(faults.workdir)], check=True)


def test_a_shard_that_vanishes_is_named_and_made_again(resumed: Faults, peace: Faults) -> None:
    """In the middle of a run, and before the next one starts."""
    data = resumed.workdir / "data"
    with resumed.started() as run:
        before = resumed.steps("uniform-0")
        run.wait(lambda: resumed.steps("uniform-0") > before)
        (shard,) = data.rglob("*train.array_record*")
        shard.unlink()
        code, line = run.said()
    assert (code, line.partition(" (")[0]) == (
        2,
        f"error: {data / 'tokens'}: token ids cannot be read",
    )
    assert shard.name in line
    with resumed.started() as run:
        code, out, _ = run.done()
    assert code == 0
    missing = shard.relative_to(resumed.workdir)
    assert f"stage prepare is made again: {missing} is missing\n" in out
    assert_same_results(resumed.workdir, peace.workdir)


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
    stopped = re.match(
        r"stopped: run (\S+) was asked to stop and stopped after step (\d+) of", line
    )
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
            for line in workdirs.lines(one.workdir)
            if "loss" in line
        }
        for one in (faults, peace)
    )
    assert losses.keys() == wanted.keys()
    # the sums over a batch are taken in another order, and Adam divides by what is small
    np.testing.assert_allclose(list(losses.values()), [wanted[step] for step in losses], rtol=1e-3)
