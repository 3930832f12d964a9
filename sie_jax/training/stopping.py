"""Ends the process when the machine is taken away: at SIGTERM, or at a notice of preemption."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from sie_jax.errors import StoppedError

_requested = _deferring = False
_before_leaving: list[Callable[[], object]] = []


def listen() -> None:
    """From now on SIGTERM ends the process with 143: at once, or when training calls `asked`.

    Where several processes are connected, JAX's preemption service takes SIGTERM over: it notices
    the signal in any of them, and has all of them stop after the same step.
    """
    signal.signal(signal.SIGTERM, _on_signal)


@contextmanager
def deferred() -> Iterator[None]:
    """Inside the block, SIGTERM waits for `asked`."""
    global _deferring
    _deferring = True
    try:
        yield
    finally:
        _deferring = False


@contextmanager
def before_leaving(action: Callable[[], object]) -> Iterator[None]:
    """Inside the block, `leave` calls `action` first; a second signal ends the process at once."""
    _before_leaving.append(action)
    try:
        yield
    finally:
        if action in _before_leaving:
            _before_leaving.remove(action)


def asked(step: int) -> bool:
    """Whether to stop after this step, the same in every process; call it after every step."""
    import jax  # here, so that a command can listen before it imports what takes seconds
    from orbax.checkpoint import multihost

    if jax.process_count() > 1:
        return bool(multihost.reached_preemption(step))
    return _requested


def leave(message: str, exit_code: int) -> None:
    """Ends the process at once, as a kill would, which everything on disk survives.

    Unwinding instead would interrupt Orbax in the middle of a save, and its threads would complain.
    """
    show_cursor = b"\x1b[?25h\n" if os.isatty(1) else b""  # the progress bar hides it
    for stream, text in ((1, show_cursor), (2, f"{message}\n".encode(errors="replace"))):
        with suppress(OSError):  # it is closed, or on the full disk
            os.write(stream, text)
    while _before_leaving:
        _before_leaving.pop()()
    os._exit(exit_code)


def _on_signal(*_: object) -> None:
    global _requested
    _requested = True
    if not _deferring:
        leave("stopped: rerun the same command to resume", StoppedError.exit_code)
