"""`prepare.py`: prepares data on Apache Beam, for `train.py` to train on."""

from sie_jax.commands import process
from sie_jax.errors import UserError

USAGE = """\
sie-jax prepare --config=FILE [--workdir=FOLDER] [--config.FIELD=VALUE ...] -- [BEAM FLAGS]

python prepare.py is the same command.

The flags before -- are those of train.py, which then trains on the workdir with the same flags.
The flags after -- are Beam's own, such as --runner=DataflowRunner. Needs pip install -e '.[beam]'.
"""


@process.command
def entry(argv: list[str]) -> None:
    """Runs one command line and returns its exit code."""
    end = argv.index("--") if "--" in argv else len(argv)
    if {"--help", "-h"} & set(argv[1:end]):
        print(USAGE)
        return
    from sie_jax.commands.flags import parse  # takes seconds, in which signals are heard already
    from sie_jax.config import Config
    from sie_jax.recipes import relevance

    given = parse(argv[:end])
    if given.distributed:
        raise UserError("--distributed is a flag of train.py: here Beam's runner has the workers")
    if given.redo:
        raise UserError("--redo is a flag of train.py: remove it")
    if not isinstance(given.config, Config):
        raise UserError("--config is of a recommender, whose events need no Beam: give it to train")
    relevance.prepare_on_beam(given.config, given.workdir, argv[end + 1 :])
