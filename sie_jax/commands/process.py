"""What surrounds every command: whatever ends it gives one line and an exit code.

| exit code | the command                                                            |
| --------- | ---------------------------------------------------------------------- |
| 0         | is done                                                                |
| 2         | met an error that the user can fix: full disks and memories included   |
| 3         | met a loss or gradient that is NaN or infinite                         |
| 4         | lost another process of the run                                        |
| 130       | was interrupted by Ctrl-C                                              |
| 143       | was stopped by SIGTERM, or by a notice that the machine is taken away  |

After 4, 130 and 143 the same command resumes. Any other error is a fault of the program and ends
with its traceback. What takes seconds to import is imported by the commands, so that signals are
heard before.
"""

import argparse
import difflib
import errno
import functools
import io
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from absl import logging

from sie_jax.errors import NumericalError, StoppedError, UserError
from sie_jax.training import stopping

LOST_PEER = 4
INTERRUPTED = 130
RESUME = "interrupted: rerun the same command to resume"
# of a path or of the machine, whatever the program does
_OF_PATHS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR),
    *(errno.EISDIR, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENXIO, errno.ESTALE),
}


class Parser(argparse.ArgumentParser):
    """Reads flags, none of them shortened; what is wrong with them is a UserError like others."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def parse_known_args(  # type: ignore[override]  # each of its forms gives the same two things
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As argparse does, but an unknown flag is named before what is missing."""
        for word in sys.argv[1:] if args is None else args:
            if word == "--":
                break
            flag = re.match(r"--\w[\w-]*(?==|$)", word)
            if flag and flag[0] not in self._option_string_actions:
                raise UserError(f"there is no flag {flag[0]}{self._near(flag[0])}")
        return super().parse_known_args(args, namespace)

    def _near(self, flag: str) -> str:
        flags = [one for one in self._option_string_actions if one.startswith("--")]
        begun = [one for one in flags if one.startswith(flag)]
        near = begun or difflib.get_close_matches(flag, flags, n=1)
        return f": did you mean {' or '.join(near)}?" if near else "; --help lists the flags"

    def error(self, message: str) -> NoReturn:
        """Raises UserError."""
        raise UserError(f"{message}; --help lists the flags")


def path(text: str) -> str:
    """The type of a flag that names a file or a folder: anything but nothing."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty, give a path")
    return text


def command(work: Callable[[list[str]], None]) -> Callable[[list[str]], int]:
    """Makes an entry point that returns the exit code of what raises.

    Either takes the words of a command line, of which the first is the program's name.
    """

    @functools.wraps(work)
    def entry(argv: list[str]) -> int:
        # Orbax and others log what is of no use to the user, or is also raised
        logging.set_verbosity(logging.FATAL)
        try:
            work(argv)
            print(end="", flush=True)  # what cannot be printed is noticed here
        except (UserError, NumericalError, StoppedError) as error:
            kind = "stopped" if isinstance(error, StoppedError) else "error"
            print(f"{kind}: {_one_line(error)}", file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:  # where no signal handler is, as in a notebook
            print(RESUME, file=sys.stderr)
            return INTERRUPTED
        except BrokenPipeError:  # nobody reads what is printed, and what is to be done is done
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        except Exception as error:
            import jax

            _leave_if_full(error)
            if jax.process_count() > 1:
                _leave_peers(error)
            fix = _fix(error)
            if not fix:
                raise
            print(f"error: {fix}", file=sys.stderr)
            return UserError.exit_code
        return 0

    return entry


def main(entry: Callable[[list[str]], int]) -> NoReturn:
    """Runs a command as the whole process, which signals and failed threads end too."""
    signal.signal(signal.SIGINT, _interrupted)
    threading.excepthook = _thread_failed
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path may hold what the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    stopping.listen()
    code = entry(sys.argv)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the work is done, and the interpreter is ending
    sys.exit(code)


def connect() -> None:
    """Finds the other processes of a run; call it before any JAX call, which takes the devices.

    Raises:
      UserError: the processes cannot be found.
    """
    import jax

    try:
        given: dict[str, Any] = {
            name: int(os.environ[variable])
            for name, variable in (
                ("num_processes", "JAX_NUM_PROCESSES"),
                ("process_id", "JAX_PROCESS_ID"),
                ("heartbeat_timeout_seconds", "JAX_HEARTBEAT_TIMEOUT_SECONDS"),
            )
            if variable in os.environ
        }
        jax.distributed.initialize(**given)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--distributed: the processes of the run cannot be found ({error}): on TPU VMs and "
            "under SLURM start one on every host; elsewhere set JAX_COORDINATOR_ADDRESS, "
            "JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from None


def _leave_peers(error: Exception) -> None:
    """Ends this process of several; the others notice when they next wait for it."""
    import jax

    if not is_of_a_peer(error):
        traceback.print_exc()
    stopping.leave(
        f"error: process {jax.process_index()} of {jax.process_count()} cannot continue, because "
        "another process was lost or failed: start all of them again to resume from the last "
        f"checkpoint ({_one_line(error)[:200]})",
        LOST_PEER,
    )


def is_of_a_peer(error: Exception) -> bool:
    """Whether waiting for another process failed; this process's stack then explains nothing."""
    import jax

    # JAX raises a ValueError where it learns of the loss while it dispatches a collective
    return isinstance(error, (jax.errors.JaxRuntimeError, TimeoutError)) or "Gloo" in str(error)


def _leave_if_full(error: BaseException | None) -> None:
    if is_of_full_disk(error):
        stopping.leave(
            "error: no space is left on the disk: free some space, then rerun the same command to "
            "resume",
            UserError.exit_code,
        )


def is_of_full_disk(error: BaseException | None) -> bool:
    """Whether a full disk caused an error: libraries wrap it, or name it only in words."""
    signs = ("No space left on device", "Disk quota exceeded")
    return any(
        getattr(one, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        or any(sign in str(one) for sign in signs)
        for one in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _fix(error: Exception) -> str:
    """What to do about memory that is used up or a path that cannot be used; "" for all else."""
    for one in _causes(error):
        # XLA says it in words
        if isinstance(one, MemoryError) or "RESOURCE_EXHAUSTED" in str(one):
            return (
                f"the memory is not enough ({_one_line(one)[:200]}): lower the batch size or the "
                "length of texts, or take a smaller model"
            )
        if isinstance(one, OSError) and one.errno in _OF_PATHS and one.filename is not None:
            return f"{one.filename} cannot be used ({one.strerror}): give another path, or mend it"
    return ""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    # the thread that writes TensorBoard's files would die unnoticed, and training wait for ever
    _leave_if_full(failed.exc_value)
    threading.__excepthook__(failed)


def _interrupted(*_: object) -> None:
    stopping.leave(RESUME, INTERRUPTED)
