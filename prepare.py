"""Prepares data on Apache Beam: `python prepare.py --config=FILE --workdir=FOLDER -- [BEAM FLAGS]`.

The flags before `--` are those of train.py, which goes on from the workdir. Exit codes: 0 done;
2 something the user can mend (one line says what). Needs `pip install -e '.[beam]'`.
"""

import sys

from sie_jax import pipeline
from sie_jax.commands.flags import parse
from sie_jax.errors import UserError


def entry(argv: list[str]) -> int:
    """Runs one command line, whose first word is the program's name, and gives the exit code."""
    if {"--help", "-h"} & set(argv[1:]):
        print(__doc__)
        return 0
    end = argv.index("--") if "--" in argv else len(argv)
    try:
        command = parse(argv[:end])
        if command.distributed:
            raise UserError("--distributed is for train.py: here Beam's runner has the workers")
        pipeline.prepare_on_beam(command.config, command.workdir, argv[end + 1 :])
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(entry(sys.argv))
