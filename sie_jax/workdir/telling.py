"""Says which stage is being made, and goes on saying so while nothing else is shown."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sie_jax.training import progress

SILENCE = 10.0  # seconds after which it is said again


@contextmanager
def telling(say: Callable[[str], None], text: str) -> Iterator[None]:
    """Says the text, and says it again with the seconds so far whenever nobody else has spoken.

    Compiling and reading take long and show nothing of themselves.
    """
    started, done = time.monotonic(), threading.Event()
    say(text)

    def repeat() -> None:
        while not done.wait(1.0):
            if progress.silence() >= SILENCE:
                say(f"{text}, {time.monotonic() - started:.0f} s so far")

    thread = threading.Thread(target=repeat, name="telling", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
