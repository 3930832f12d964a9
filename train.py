"""Parses the flags and hands over: `python train.py --config=configs/quickstart.py`.

Exit codes: 0 done; 2 something the user can mend (one line says what); 3 a loss became NaN or
infinite.
"""

import os
import sys
from pathlib import Path

# transformers says at import that PyTorch is missing, which is as intended here
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

from absl import app, flags, logging
from ml_collections import config_flags

from sie_jax import pipeline
from sie_jax.errors import NumericalError, UserError

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Default: runs/<config name>.")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise UserError(f"{argv[1]!r} is not a flag: flags begin with --, as in --workdir=FOLDER")
    logging.set_verbosity(logging.ERROR)
    config = _CONFIG.value
    pipeline.run(config, Path(_WORKDIR.value or f"runs/{config.name}"))


def _parse(argv: list[str]) -> list[str]:
    """Parses the flags; what is wrong with them is the user's to mend: one line, no traceback."""
    if not any(flag.split("=")[0].lstrip("-") == "config" for flag in argv[1:]):
        raise UserError("--config is missing: give a file, as in --config=configs/quickstart.py")
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f"flags: {error}") from None


if __name__ == "__main__":
    try:
        app.run(main, flags_parser=_parse)
    except (UserError, NumericalError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
