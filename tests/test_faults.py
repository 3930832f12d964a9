"""What may happen to a run from outside: what is lost, which is nothing finished, and what is said.

Each fault hits a real `train.py`, and the same command then has to end in the results of a run that
was left in peace, to the last bit.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import sie_jax
from sie_jax.files import read_json

ROOT = Path(sie_jax.__file__).parents[1]
# compiling is most of what a tiny run does
ENVIRONMENT = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_PLATFORMS": "cpu"}

TINY = """
from sie_jax.config import Config


def get_config():
    config = Config(name="tiny")
    config.data.synthetic.queries = 20
    config.data.synthetic.items_per_query = 8
    config.data.vocabulary_size = 500
    config.data.buckets = 1
    config.model.hidden_size = 8
    config.model.num_hidden_layers = 1
    config.model.num_attention_heads = 2
    config.model.intermediate_size = 8
    config.train.batch_size = 8
    config.train.epochs = 20  # long enough to be met in the middle
    config.train.checkpoint_every = 5
    config.train.log_every = 1
    config.evaluation.resamples = 100
    config.evaluation.explained_queries = 0
    return config
"""


class Faults:
    """Starts runs of the tiny config in a workdir of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.workdir = folder, folder / "work"
        (folder / "tiny.py").write_text(TINY)

    @contextlib.contextmanager
    def started(self, *flags: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, str(ROOT / "train.py"), f"--config={self.folder / 'tiny.py'}"]
        with subprocess.Popen(
            [*command, f"--workdir={self.workdir}", *flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT | environment,
        ) as process:
            try:
                yield process
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()

    def ended(self, *flags: str, **environment: str) -> tuple[int, str]:
        """The exit code of a run that is left in peace, and its last line on stderr."""
        with self.started(*flags, **environment) as process:
            return self.said(process)

    def said(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        error = process.communicate(timeout=300)[1].strip()
        assert "Traceback" not in error, error
        return process.returncode, error.split("\n")[-1]

    def wait(self, process: subprocess.Popen[str], done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 240
        while not done():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def steps(self, run: str) -> list[int]:
        """The steps of a run's checkpoints that are whole."""
        found = (self.workdir / "checkpoints" / run).glob("*/_CHECKPOINT_METADATA")
        return sorted(int(path.parent.name) for path in found if path.parent.name.isdigit())


@pytest.fixture(scope="module")
def peace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a run that nothing happened to."""
    faults = Faults(tmp_path_factory.mktemp("peace"))
    assert faults.ended()[0] == 0
    return faults.workdir


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    return Faults(tmp_path)


def assert_same(workdir: Path, peace: Path) -> None:
    """All that a run measures, to the last bit; but for what time it took."""

    def measured(folder: Path) -> Any:
        metrics = read_json(folder / "metrics.json")
        for cost in metrics["cost"].values():
            del cost["seconds"]
        return metrics

    assert measured(workdir) == measured(peace)
    for name in ("metrics.jsonl", "model/model.safetensors", "audit.csv"):
        assert (workdir / name).read_bytes() == (peace / name).read_bytes(), name
    assert pq.read_table(workdir / "importance.parquet").equals(
        pq.read_table(peace / "importance.parquet")
    )


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(lambda run: (run.workdir / ".data.tmp").exists(), id="while preparing"),
        pytest.param(lambda run: len(run.steps("uniform-0")) > 1, id="in the middle of training"),
        pytest.param(
            lambda run: bool(list((run.workdir / "checkpoints" / "weighted-0").glob("*-tmp"))),
            id="while a checkpoint is written",
        ),
    ],
)
def test_a_killed_run_ends_in_the_same_bits(
    faults: Faults, peace: Path, moment: Callable[[Faults], bool]
) -> None:
    with faults.started() as process:
        faults.wait(process, lambda: moment(faults))
        process.kill()
    assert not (faults.workdir / "metrics.json").exists()
    assert faults.ended()[0] == 0
    assert_same(faults.workdir, peace)


def test_sigterm_saves_the_step_and_the_same_command_goes_on_there(
    faults: Faults, peace: Path
) -> None:
    with faults.started() as process:
        faults.wait(process, lambda: bool(faults.steps("uniform-0")))
        process.send_signal(signal.SIGTERM)
        code, line = faults.said(process)
    assert code == 143
    step = faults.steps("uniform-0")[-1]
    assert line.startswith(f"stopped: run uniform-0 was asked to stop and did so after step {step}")
    assert faults.ended()[0] == 0
    assert_same(faults.workdir, peace)


def test_a_second_run_on_the_workdir_refuses_and_the_first_goes_on(
    faults: Faults, peace: Path
) -> None:
    with faults.started() as process:
        faults.wait(process, lambda: bool(faults.steps("warmup")))
        code, line = faults.ended()
        assert (code, line) == (
            2,
            f"error: {faults.workdir} is in use by another run: wait until it is done, or give "
            "another folder with --workdir",
        )
        assert faults.said(process)[0] == 0
    assert_same(faults.workdir, peace)


def test_a_broken_checkpoint_is_noticed_and_the_one_before_it_used(
    faults: Faults, peace: Path
) -> None:
    with faults.started() as process:
        faults.wait(process, lambda: len(faults.steps("weighted-0")) > 1)
        process.send_signal(signal.SIGTERM)
        assert faults.said(process)[0] == 143
    step = faults.steps("weighted-0")[-1]
    folder = faults.workdir / "checkpoints" / "weighted-0" / str(step)
    largest = max((path for path in folder.rglob("*") if path.is_file()), key=os.path.getsize)
    os.truncate(largest, 10)
    assert faults.ended()[0] == 0
    assert (faults.workdir / "checkpoints" / "weighted-0.broken" / str(step)).is_dir()
    assert_same(faults.workdir, peace)


def test_a_full_disk_ends_in_one_line_and_loses_nothing(faults: Faults, peace: Path) -> None:
    faults.workdir.mkdir()
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(faults.workdir)]
    if subprocess.run([*mount, "-o", "size=600k"], check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be made here: mounting takes root")
    try:
        code, line = faults.ended()
        assert (code, line) == (
            2,
            "error: no space is left on the disk: free some, and the same command goes on from "
            "what is done",
        )
        subprocess.run([*mount, "-o", "remount,size=100m"], check=True)
        assert faults.ended()[0] == 0
        assert_same(faults.workdir, peace)
    finally:
        subprocess.run(["umount", str(faults.workdir)], check=True)


def test_a_lost_process_is_noticed_by_the_others_and_two_go_on_from_the_checkpoint(
    faults: Faults,
) -> None:
    with socket.socket() as opened:
        opened.bind(("localhost", 0))
        address = f"localhost:{opened.getsockname()[1]}"
    environment = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    with (
        faults.started("--distributed", **environment, JAX_PROCESS_ID="0") as first,
        faults.started("--distributed", **environment, JAX_PROCESS_ID="1") as second,
    ):
        faults.wait(first, lambda: bool(faults.steps("uniform-0")))
        second.kill()
        error = first.communicate(timeout=300)[1].strip()
    assert first.returncode == 4, error
    assert error.split("\n")[-1].startswith("error: process 0 of 2 cannot go on, as another")
    # what is there is whole: one process alone can go on from it
    assert faults.ended()[0] == 0
