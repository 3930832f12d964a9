"""What one of several processes does for all: files written once, questions answered alike.

All processes of a run execute the same program and see the same files. With one process, everything
here is the plain call.
"""

import itertools
import json
from collections.abc import Callable
from typing import Any, ParamSpec

import jax
import numpy as np
from jax.experimental import multihost_utils

from sie_jax.errors import UserError

P = ParamSpec("P")
# a catalogue of millions is prepared by one process while the others wait
WAIT_SECONDS = 24 * 3600
_MESSAGE_BYTES = 2000
_numbers = itertools.count()


def first() -> bool:
    """Whether this is process 0, which writes what is written once."""
    return jax.process_index() == 0


def agreed(value: bool) -> bool:
    """Process 0's answer in every process, such as whether a file is there.

    Without it one process would find a file, another not yet, and they would part ways.
    """
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.int32(value)))


def together() -> None:
    """Returns once every process is here."""
    if jax.process_count() > 1:
        from orbax.checkpoint import multihost  # takes a second, for which one process has no use

        multihost.get_barrier_sync_fn()(
            key=f"sie_jax_{next(_numbers)}", timeout_ms=1000 * WAIT_SECONDS
        )


def told(ask: Callable[[], Any]) -> Any:
    """What `ask` gives in process 0, a JSON value, in every process; raises as `alone` does."""
    if jax.process_count() == 1:
        return ask()
    answer: list[Any] = []
    alone(lambda: answer.append(ask()))
    text = json.dumps(answer[0]).encode() if answer else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.zeros(size, np.uint8)
    if first():
        padded[:] = np.frombuffer(text, np.uint8)
    return json.loads(bytes(multihost_utils.broadcast_one_to_all(padded)))


def alone(action: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Calls `action` in process 0; returns in every process once it is done.

    Raises what it raises: elsewhere a UserError with the same message for a UserError, and a
    RuntimeError for anything else.
    """
    if jax.process_count() == 1:
        action(*args, **kwargs)
        return
    failure: Exception | None = None
    if first():
        try:
            action(*args, **kwargs)
        except Exception as error:
            failure = error
    together()
    told = np.zeros(_MESSAGE_BYTES, np.uint8)
    if failure is not None:
        kind = "u" if isinstance(failure, UserError) else "e"
        text = f"{kind}{type(failure).__name__}: {failure}" if kind == "e" else f"u{failure}"
        encoded = np.frombuffer(text.encode()[:_MESSAGE_BYTES], np.uint8)
        told[: len(encoded)] = encoded
    message = (
        bytes(multihost_utils.broadcast_one_to_all(told)).rstrip(b"\0").decode(errors="replace")
    )
    if failure is not None:
        raise failure
    if message.startswith("u"):
        raise UserError(message[1:])
    if message:
        raise RuntimeError(f"process 0 failed: {message[1:]}")
