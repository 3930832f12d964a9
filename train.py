"""Parses the flags and hands over: `python train.py --config=configs/quickstart.py`.

Exit codes: 0 done; 2 something the user can mend (one line says what); 3 a loss became NaN or
infinite; 4 another process of the run was lost; 130 interrupted by Ctrl-C; 143 stopped by SIGTERM
or a notice of preemption. After 4, 130 and 143 the same command goes on.
"""

import difflib
import errno
import os
import re
import runpy
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

# transformers says at import that PyTorch is missing, which is as intended here
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

import jax
from absl import flags, logging
from ml_collections import config_flags
from rich.console import Console

from sie_jax import pipeline
from sie_jax.config import Config, as_json, flat
from sie_jax.errors import NumericalError, StoppedError, UserError
from sie_jax.training import stopping

LOST_PEER = 4
FIELDS = flat(as_json(Config()))
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
            config, workdir, distributed = parse(argv)
            if distributed:
                _connect()
            pipeline.run(config, workdir)
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


def parse(argv: list[str]) -> tuple[Config, str, bool]:
    """The config with the fields overridden that the flags name, the workdir, --distributed."""
    _check_fields(argv)
    values = flags.FlagValues()  # of this command line alone: libraries define flags of their own
    try:
        config_flags.DEFINE_config_dataclass(
            "config", Config(), flag_values=values, sys_argv=argv, parse_fn=_load
        )
        flags.DEFINE_string("workdir", None, "", flag_values=values)
        flags.DEFINE_bool("distributed", False, "", flag_values=values)
        rest = values(argv)[1:]
    except flags.IllegalFlagValueError as error:
        flag = str(error).removeprefix("flag ").partition(": ")[0]
        field = flag.partition("=")[0].removeprefix("--config.")
        raise UserError(f"{flag}: give a value of type {type(FIELDS[field]).__name__}") from None
    except flags.UnrecognizedFlagError as error:
        raise UserError(
            f"--{error.flagname} is no flag: the flags are --config, --config.FIELD, --workdir, "
            "--distributed and --replay"
        ) from None
    except flags.Error as error:
        raise UserError(f"{error}; see --help") from None
    if rest:
        raise UserError(f"{rest[0]!r} is no flag: flags begin with --, as in --workdir=FOLDER")
    if not values["config"].present:
        raise UserError("--config is missing: give a file, as in --config=configs/quickstart.py")
    config: Config = values.config
    return config, values.workdir or f"runs/{config.name}", values.distributed


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


def _check_fields(argv: list[str]) -> None:
    """Raises UserError for the first flag that overrides a field which no config has."""
    for flag in argv[1:]:
        override = re.match(r"--?(?:no)?config\.([^=]*)", flag)
        if override and override[1] not in FIELDS:
            name = override[1]
            near = [field for field in FIELDS if field.startswith(f"{name}.")]
            near = near or difflib.get_close_matches(name, FIELDS, n=1)
            mend = f"did you mean {' or '.join(near)}?" if near else "--help lists all fields"
            raise UserError(f"--config.{name}: there is no field {name!r}; {mend}")


def _load(file: str) -> Config:
    """What a config file's get_config gives; whatever goes wrong there is the user's to mend."""
    if not Path(file).is_file():
        raise UserError(f"--config={file}: no such file; give one such as configs/quickstart.py")
    try:
        get_config = runpy.run_path(file).get("get_config")
        config = get_config() if get_config else None
    except Exception as error:
        lines = [
            at.lineno for at in traceback.extract_tb(error.__traceback__) if at.filename == file
        ]
        where = f"{file}, line {lines[-1]}" if lines else file
        raise UserError(f"--config={where}: {type(error).__name__}: {error}") from None
    if not isinstance(config, Config):
        raise UserError(f"--config={file}: give it a get_config that returns sie_jax.config.Config")
    return config


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
