import errno
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax
import pytest

from sie_jax.commands import process
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


@pytest.mark.parametrize("module", ["sie_jax.predict", "sie_jax.audit"])
def test_the_names_that_users_know_call_their_commands(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"usage: python -m {module} ")
    assert done.stderr == ""  # transformers does not complain that PyTorch is missing
