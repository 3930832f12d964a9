"""Parses the flags and hands over: `python train.py --config=configs/quickstart.py`.

Exit codes: 0 done; 2 something the user can mend (one line says what); 3 a loss became NaN or
infinite; 4 another process of the run was lost; 130 interrupted by Ctrl-C; 143 stopped by SIGTERM
or a notice of preemption. After 4, 130 and 143 the same command goes on.
"""

import errno
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

# transformers says at import that PyTorch is missing, which is as intended here
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

import jax
from absl import logging
from rich.console import Console

from sie_jax import pipeline
from sie_jax.commands.flags import FIELDS, parse
from sie_jax.errors import NumericalError, StoppedError, UserError
from sie_jax.training import stopping

LOST_PEER = 4
USAGE = """\
python train.py --config=FILE [--workdir=FOLDER] [--distributed] [--config.FIELD=VALUE ...]

  --config       a Python file with a function get_config, such as configs/quickstart.py
  --workdir      the folder of the results; default: runs/<config name>. The same command again
                 goes on where it was interrupted and repeats nothing that is done. May be in an
                 object store, gs://BUCKET/FOLDER or s3://BUCKET/FOLDER, as may data and models.
  --distributed  this process is one of several that run the same command on one workdir. Where
                 they are is known on TPU VMs and under SLURM and Open MPI; elsewhere the variables
                 JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and
                 JAX_PROCESS_ID say it. One that is not heard of for
                 JAX_HEARTBEAT_TIMEOUT_SECONDS (100) counts as lost.
  --replay=FILE  alone: shows what every row of a batch does at which a run broke off with NaN; FILE
                 is in WORKDIR/replay.

The fields, with what they are where the file does not set them:
"""


def entry(argv: list[str]) -> int:
    """Runs one command line, whose first word is the program's name, and gives the exit code."""
    # Orbax and others report there what is of no use to the user, or is raised here too
    logging.set_verbosity(logging.FATAL)
    try:
        if {"--help", "-h"} & set(argv[1:]):
            print(USAGE + "\n".join(f"  --config.{name}={FIELDS[name]}" for name in FIELDS))
        elif replayed := [flag for flag in argv[1:] if flag.startswith("--replay=")]:
            if len(argv) > 2:
                raise UserError("--replay stands alone: the config is that of the run's workdir")
            pipeline.replay(Path(replayed[0].partition("=")[2]), Console())
        else:
            command = parse(argv)
            if command.distributed:
                _connect()
            pipeline.run(command.config, command.workdir)
    except (UserError, NumericalError, StoppedError) as error:
        kind = "stopped" if isinstance(error, StoppedError) else "error"
        print(f"{kind}: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        _leave_if_full(error)
        if jax.process_count() == 1:
            raise
        # whatever fails in one process, the others learn of when they next wait for it
        if not _is_of_a_peer(error):
            traceback.print_exc()
        stopping.leave(
            f"error: process {jax.process_index()} of {jax.process_count()} cannot go on, as "
            "another process was lost or failed: start all of them again, the same command goes on "
            f"from the last checkpoint ({' '.join(str(error).split())[:200]})",
            LOST_PEER,
        )
    return 0


def _is_of_a_peer(error: Exception) -> bool:
    """Whether waiting for another process failed, of which this one's stack says nothing."""
    # what fails inside a collective is a ValueError where JAX hears of it while it dispatches
    return isinstance(error, (jax.errors.JaxRuntimeError, TimeoutError)) or "Gloo" in str(error)


def _leave_if_full(error: BaseException | None) -> None:
    if _is_full(error):
        stopping.leave(
            "error: no space is left on the disk: free some, and the same command goes on from "
            "what is done",
            UserError.exit_code,
        )


def _is_full(error: BaseException | None) -> bool:
    """Whether a full disk is behind an error: libraries wrap it, or name it in words alone."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(sign in str(error) for sign in ("No space left on device", "Disk quota exceeded")):
            return True
        error = error.__cause__ or error.__context__
    return False


def _connect() -> None:
    """Finds the other processes of the run; before any JAX call, or the devices are taken."""
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
            f"--distributed: the processes of the run cannot be found ({error}): on a TPU VM or "
            "under SLURM start one on every host; elsewhere set JAX_COORDINATOR_ADDRESS, "
            "JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from None


def _in_thread(failed: threading.ExceptHookArgs) -> None:
    # what writes TensorBoard's files would die unnoticed, and training wait for it for ever
    _leave_if_full(failed.exc_value)
    threading.__excepthook__(failed)


def _interrupted(*_: object) -> None:
    stopping.leave("interrupted: the same command resumes from the last checkpoint", 130)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _interrupted)
    threading.excepthook = _in_thread
    stopping.listen()
    sys.exit(entry(sys.argv))
