"""Parses the flags and hands over: `python train.py --config=configs/quickstart.py`.

Exit codes: 0 done; 2 something the user can mend (one line says what); 3 a loss became NaN or
infinite; 130 interrupted by Ctrl-C.
"""

import difflib
import os
import re
import runpy
import signal
import sys
import traceback
from pathlib import Path
from typing import NoReturn

# transformers says at import that PyTorch is missing, which is as intended here
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

from absl import flags, logging
from ml_collections import config_flags

from sie_jax import pipeline
from sie_jax.config import Config, as_json, flat
from sie_jax.errors import NumericalError, UserError

FIELDS = flat(as_json(Config()))
USAGE = """\
python train.py --config=FILE [--workdir=FOLDER] [--config.FIELD=VALUE ...]

  --config    a Python file with a function get_config, such as configs/quickstart.py
  --workdir   the folder of the results; default: runs/<config name>. The same command again goes
              on where it was interrupted and repeats nothing that is done.

The fields, with what they are where the file does not set them:
"""


def entry(argv: list[str]) -> int:
    """Runs one command line, whose first word is the program's name, and gives the exit code."""
    # Orbax and others report there what is of no use to the user
    logging.set_verbosity(logging.ERROR)
    try:
        if {"--help", "-h"} & set(argv[1:]):
            print(USAGE + "\n".join(f"  --config.{name}={FIELDS[name]}" for name in FIELDS))
        else:
            pipeline.run(*_parse(argv))
    except (UserError, NumericalError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    return 0


def _parse(argv: list[str]) -> tuple[Config, Path]:
    """The config, with the fields overridden that the flags name, and the workdir."""
    _check_fields(argv)
    values = flags.FlagValues()  # of this command line alone: libraries define flags of their own
    try:
        config_flags.DEFINE_config_dataclass(
            "config", Config(), flag_values=values, sys_argv=argv, parse_fn=_load
        )
        flags.DEFINE_string("workdir", None, "", flag_values=values)
        rest = values(argv)[1:]
    except flags.IllegalFlagValueError as error:
        flag = str(error).removeprefix("flag ").partition(": ")[0]
        field = flag.partition("=")[0].removeprefix("--config.")
        raise UserError(f"{flag}: give a value of type {type(FIELDS[field]).__name__}") from None
    except flags.UnrecognizedFlagError as error:
        raise UserError(
            f"--{error.flagname} is no flag: the flags are --config, --config.FIELD and --workdir"
        ) from None
    except flags.Error as error:
        raise UserError(f"{error}; see --help") from None
    if rest:
        raise UserError(f"{rest[0]!r} is no flag: flags begin with --, as in --workdir=FOLDER")
    if not values["config"].present:
        raise UserError("--config is missing: give a file, as in --config=configs/quickstart.py")
    config: Config = values.config
    return config, Path(values.workdir or f"runs/{config.name}")


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


def _interrupted(*_: object) -> NoReturn:
    """Ends the process where it stands, as a kill would: all that is on disk stands that.

    Unwinding instead would cut Orbax off in the middle of a save, of which its threads complain.
    """
    show_cursor = b"\x1b[?25h\n" if sys.stdout.isatty() else b""  # the progress bar hides it
    os.write(1, show_cursor)
    os.write(2, b"interrupted: the same command resumes from the last checkpoint\n")
    os._exit(130)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _interrupted)
    sys.exit(entry(sys.argv))
