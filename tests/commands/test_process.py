import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax
import pyarrow as pa
import pytest

from sie_jax.commands import audit, compare, evaluate, predict, process
from sie_jax.errors import NumericalError, StoppedError, UserError
from sie_jax.training import stopping


class LeftError(BaseException):
    """Stands for the end of the process, which no `except Exception` holds up."""


@pytest.fixture(autouse=True)
def left(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """The messages and exit codes with which the process would have ended."""
    ends: list[tuple[str, int]] = []

    def leave(message: str, exit_code: int) -> None:
        ends.append((message, exit_code))
        raise LeftError

    monkeypatch.setattr(stopping, "leave", leave)
    return ends


def failing(error: BaseException) -> Any:
    @process.command
    def entry(argv: list[str]) -> None:
        raise error

    return entry


def test_a_command_that_returns_gives_0_and_gets_its_words() -> None:
    given = []
    assert process.command(given.extend)(["name", "--flag"]) == 0
    assert given == ["name", "--flag"]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("a bad\n  flag"), 2, "error: a bad flag\n"),
        (NumericalError("NaN"), 3, "error: NaN\n"),
        (StoppedError("asked"), 143, "stopped: asked\n"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_user_is_told_is_one_line(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int, line: str
) -> None:
    assert failing(error)([]) == code
    assert capsys.readouterr().err == line


def test_a_fault_of_the_program_keeps_its_traceback(left: list[tuple[str, int]]) -> None:
    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError())([])
    assert not left


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "the memory is not enough"),
        (pa.ArrowMemoryError("malloc of size 9 failed"), "malloc of size 9 failed): lower the"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out\nof memory"), "lower the batch size"),
        (PermissionError(errno.EACCES, "Permission denied", "/a"), "/a cannot be used (Permission"),
        (OSError(errno.EROFS, "Read-only file system", "/b/c"), "/b/c cannot be used (Read-only"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "ccc"), "ccc cannot be used"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_machine_that_is_too_small_or_closed_is_one_line(
    capsys: pytest.CaptureFixture[str], error: Exception, said: str
) -> None:
    for one in (error, wrapped(error)):
        assert failing(one)([]) == 2
        line = capsys.readouterr().err
        assert line.startswith("error: ")
        assert said in line
        assert line.count("\n") == 1


def test_a_file_that_the_program_lost_keeps_its_traceback() -> None:
    with pytest.raises(FileNotFoundError):
        failing(FileNotFoundError(errno.ENOENT, "No such file", "/a"))([])


def test_ctrl_c_where_no_handler_is_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(KeyboardInterrupt())([]) == 130
    assert capsys.readouterr().err == "interrupted: rerun the same command to resume\n"


@pytest.mark.parametrize(
    ("entry", "flags", "said"),
    [
        (predict.entry, ["--batch_size=x"], "argument --batch_size: invalid int value: 'x'"),
        (predict.entry, ["--model=", "--input=a"], "argument --model: it is empty, give a path"),
        (predict.entry, ["--top=3"], "required: --model, --output"),
        (predict.entry, ["--nothing"], "there is no flag --nothing; --help lists the flags"),
        (predict.entry, ["--hlep"], "there is no flag --hlep: did you mean --help?"),
        (evaluate.entry, ["--score=a"], "there is no flag --score: did you mean --scores?"),
        (compare.entry, ["a", "--out=c.html"], "no flag --out: did you mean --output?"),
        (audit.entry, ["--lab=0,1"], "no flag --lab: did you mean --labels or --label?"),
        (audit.entry, ["--pairs", "--label"], "argument --pairs: expected one argument"),
        (audit.entry, ["--pairs=a", "--output="], "argument --output: it is empty"),
        (audit.entry, ["--apply="], "argument --apply: it is empty"),
        (audit.entry, ["--pairs"], "argument --pairs: expected one argument"),
    ],
)
def test_flags_that_are_wrong_get_one_line(
    capsys: pytest.CaptureFixture[str], entry: Any, flags: list[str], said: str
) -> None:
    assert entry(["name", *flags]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert said in line
    assert line.count("\n") == 1


def test_signals_are_heard_before_what_takes_seconds_to_import() -> None:
    code = "import sys, sie_jax.commands.process; print({'jax', 'pyarrow'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def wrapped(inner: BaseException) -> Exception:
    outer = RuntimeError("cannot be written")
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "full"),
        OSError(errno.EDQUOT, "full"),
        wrapped(OSError(errno.ENOSPC, "full")),
        RuntimeError("UNKNOWN: write: No space left on device"),
    ],
    ids=repr,
)
def test_a_full_disk_is_one_line_in_any_thread(
    left: list[tuple[str, int]], error: Exception
) -> None:
    with pytest.raises(LeftError):
        failing(error)([])
    with pytest.raises(LeftError):
        process._thread_failed(threading.ExceptHookArgs((type(error), error, None, None)))
    ((message, code),) = set(left)
    assert code == 2
    assert message.startswith("error: no space is left on the disk: ")
    assert not process.is_of_full_disk(OSError(errno.EACCES, "denied"))


@pytest.mark.parametrize(
    ("error", "of_a_peer"),
    [
        (jax.errors.JaxRuntimeError("UNAVAILABLE: connection closed by peer"), True),
        (TimeoutError("Timeout waiting for a barrier"), True),
        # raised where a peer is lost while a collective is dispatched, which no test can time
        (ValueError("UNKNOWN: Gloo AllGather failed: Read error: Connection reset by peer"), True),
        (ValueError("operands could not be broadcast together"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_another_process_did_is_told_from_what_this_one_did(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    left: list[tuple[str, int]],
    error: Exception,
    of_a_peer: bool,
) -> None:
    """Either ends with 4; only what this process did is worth its traceback."""
    assert process.is_of_a_peer(error) == of_a_peer
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(LeftError):
        failing(error)([])
    ((message, code),) = left
    assert code == 4
    assert message.startswith("error: process 0 of 2 cannot continue, because another process ")
    assert message.endswith(f"({error})")
    assert ("Traceback" in capsys.readouterr().err) == (not of_a_peer)


@pytest.mark.parametrize(
    ("environment", "given"),
    [
        ({}, {}),
        (
            {
                "JAX_NUM_PROCESSES": "3",
                "JAX_PROCESS_ID": "1",
                "JAX_HEARTBEAT_TIMEOUT_SECONDS": "20",
            },
            {"num_processes": 3, "process_id": 1, "heartbeat_timeout_seconds": 20},
        ),
    ],
    ids=["found by JAX", "given"],
)
def test_the_processes_are_connected_as_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], given: dict[str, int]
) -> None:
    called: list[dict[str, int]] = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **values: called.append(values))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    process.connect()
    assert called == [given]


@pytest.mark.parametrize("text", ["two", ""])
def test_processes_that_cannot_be_found_are_the_users_to_name(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("JAX_NUM_PROCESSES", text)
    with pytest.raises(UserError, match="--distributed: the processes of the run cannot be found"):
        process.connect()


SLEEPING = """
import time
from sie_jax.commands import process

@process.command
def entry(argv):
    print("ready", flush=True)
    time.sleep(60)

process.main(entry)
"""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_an_end_that_cannot_be_told_is_still_an_end() -> None:
    """Where standard output is full or closed."""
    code = "from sie_jax.commands import process as p; p.main(p.command(lambda argv: print('a')))"
    for stream, wanted in (("/dev/full", 2), ("/dev/null", 0)):
        with open(stream, "w") as out:
            done = subprocess.run([sys.executable, "-c", code], stdout=out, stderr=subprocess.PIPE)
        assert done.returncode == wanted
        assert (b"no space is left" in done.stderr) == (wanted == 2)
        assert b"Traceback" not in done.stderr
    closed = subprocess.run(["sh", "-c", f'{sys.executable} -c "{code}" >&- 2>&-'])
    assert closed.returncode == 0


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted: "), (signal.SIGTERM, 143, "stopped: ")],
    ids=["SIGINT", "SIGTERM"],
)
def test_a_signal_ends_any_command_in_one_line(
    number: signal.Signals, code: int, word: str
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPING],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(number)
        _, err = running.communicate(timeout=60)
    assert running.returncode == code
    assert err.startswith(word)
    assert err.count("\n") == 1


def test_a_signal_after_the_work_is_done_changes_nothing() -> None:
    code = """
import atexit, os, signal
from sie_jax.commands import process
for number in (signal.SIGINT, signal.SIGTERM):
    atexit.register(os.kill, os.getpid(), number)
process.main(process.command(lambda argv: print("done")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.parametrize("name", ["predict", "audit"])
def test_the_names_that_users_know_call_their_commands(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"sie_jax.{name}", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"usage: sie-jax {name} ")
    assert done.stderr == ""  # transformers does not complain that PyTorch is missing
