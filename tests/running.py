"""Runs the repository's commands on tiny configs, in processes forked with every import done."""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import sie_jax

ROOT = Path(__file__).parents[1]
TRAIN = str(ROOT / "train.py")
BEGUN = f"sie_jax {sie_jax.__version__}: loading JAX and the config\n"  # before any import
# compiling is most of what a tiny run does
ENVIRONMENT = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": str(ROOT),
}
# explanations and changed queries take compiled passes; tests/stages covers them
SMALLEST = {
    "data.vocabulary_size": 500,
    "data.buckets": 1,
    "model.hidden_size": 8,
    "model.num_hidden_layers": 1,
    "model.num_attention_heads": 2,
    "model.intermediate_size": 8,
    "train.batch_size": 8,
    "train.epochs": 1,
    "evaluation.resamples": 100,
    "evaluation.explained_queries": 0,
    "evaluation.changed_queries": 0,
}
# a forked process executes this: `python COMMAND` without its imports, which are done already;
# it collects garbage as seldom as the tests do
PROGRAM = """
import gc, os, runpy, sys
gc.set_threshold(50_000, 20, 20)
os.environ.update(environment)
os.chdir(folder)
for stream, name in ((1, "stdout"), (2, "stderr")):
    file = os.path.join(output, name)
    os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
exec(first)
sys.argv = command
runpy.run_path(command[0], run_name="__main__")
"""


def config_text(fields: Mapping[str, Any]) -> str:
    """The text of a config file with the smallest model and these fields."""
    return "\n".join(
        [
            "from sie_jax.config import Config",
            "def get_config():",
            '    config = Config(name="tiny")',
            *(f"    config.{name} = {value!r}" for name, value in (SMALLEST | fields).items()),
            "    return config",
        ]
    )


@pytest.fixture(scope="session")
def forks() -> Any:
    """The context of processes that begin with everything imported."""
    context = multiprocessing.get_context("forkserver")
    # `sie_jax` imports the last two no earlier than a run needs them
    context.set_forkserver_preload(
        [
            *("sie_jax.recipes.relevance", "sie_jax.recipes.replay", "sie_jax.report.plots"),
            *("grain", "lightgbm"),
        ]
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        process = context.Process(target=int)  # the first process starts the server
        process.start()
        process.join()
    return context


class Done(NamedTuple):
    """A command that has ended."""

    code: int | None
    out: str
    err: str


class Process:
    """A command under way, whose standard output and error go to files of `output`."""

    def __init__(self, process: BaseProcess, output: Path) -> None:
        self.process, self._output = process, output

    def send(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    @property
    def stdout(self) -> str:
        return (self._output / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self._output / "stderr").read_text()

    def wait(self, done: Callable[[], bool]) -> None:
        """Waits until `done()`; fails where the process ends before."""
        deadline = time.monotonic() + 240
        while not done():
            assert self.process.is_alive(), self.stderr
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def done(self) -> Done:
        """Waits for the end of the process, which must not be a traceback."""
        self.process.join(300)
        assert "Traceback" not in self.stderr, self.stderr
        return Done(self.process.exitcode, self.stdout, self.stderr)

    def said(self) -> tuple[int | None, str]:
        """The exit code at the end, and the last line on stderr."""
        code, _, err = self.done()
        return code, err.strip().split("\n")[-1]


class Commands:
    """Starts `train.py`; the config file and the outputs are in `folder`."""

    def __init__(self, folder: Path, forks: Any, fields: Mapping[str, Any]) -> None:
        self.folder, self._forks, self._number = folder, forks, 0
        file = folder / "tiny.py"
        file.write_text(config_text(fields))
        self.config = f"--config={file}"

    @contextlib.contextmanager
    def started(
        self,
        *flags: str,
        environment: Mapping[str, str] | None = None,
        folder: Path = ROOT,
        first: str = "",
    ) -> Iterator[Process]:
        """A process with the current folder `folder` that executes `first`, then the command."""
        output = self.folder / f"output-{self._number}"
        output.mkdir()
        self._number += 1
        names = {
            "command": [TRAIN, *flags],
            "environment": dict(environment or {}),
            "folder": str(folder),
            "first": first,
            "output": str(output),
        }
        process = self._forks.Process(target=exec, args=(PROGRAM, names))
        process.start()
        try:
            yield Process(process, output)
        finally:
            process.kill()
            process.join()
