"""Says what is being done, and goes on saying so while nothing else is shown."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SILENCE = 10.0  # seconds after which it is said again
_spoken = time.monotonic()


def spoke() -> None:
    """Tells that something has just been shown."""
    global _spoken
    _spoken = time.monotonic()


def silence() -> float:
    """The seconds since something was shown."""
    return time.monotonic() - _spoken


@contextmanager
def telling(say: Callable[[str], None], text: str) -> Iterator[None]:
    """Says the text, and says it again with the seconds so far whenever nobody else has spoken.

    Importing, reading and compiling take long and show nothing of themselves.
    """
    started, done = time.monotonic(), threading.Event()
    say(text)
    spoke()

    def repeat() -> None:
        while not done.wait(1.0):
            if silence() >= SILENCE:
                say(f"{text}, {time.monotonic() - started:.0f} s so far")
                spoke()

    thread = threading.Thread(target=repeat, name="telling", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
