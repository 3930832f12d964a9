"""`train.py`: trains and evaluates one config, or explains the batch on which a run failed."""

import re
from pathlib import Path
from typing import Any

import sie_jax
from sie_jax.commands import process
from sie_jax.errors import UserError
from sie_jax.telling import telling

USAGE = """\
sie-jax train --config=FILE [--workdir=FOLDER] [--redo=STAGE[,STAGE]] [--distributed]
              [--config.FIELD=VALUE ...] [--dry-run]
sie-jax train --replay=FILE

python train.py is the same command.

  --config=FILE        a Python file with a function get_config, such as configs/quickstart.py
  --workdir=FOLDER     the folder of the results; runs/<config name> if not given. The same command
                       again resumes where it was interrupted and repeats no finished stage. The
                       folder may be in an object store, gs://BUCKET/FOLDER or s3://BUCKET/FOLDER,
                       and so may data and models.
  --redo=STAGE         makes a finished stage again, and what follows from it
  --dry-run            reads the data as the run would, and says what it found and what it would
                       train, with the memory and the time of a step; it writes nothing
  --distributed        this process is one of several that run the same command on one workdir.
                       TPU VMs, SLURM and Open MPI tell each process where the others are;
                       elsewhere set JAX_COORDINATOR_ADDRESS (host:port of process 0),
                       JAX_NUM_PROCESSES and JAX_PROCESS_ID. A process that is silent for
                       JAX_HEARTBEAT_TIMEOUT_SECONDS (100) counts as lost.
  --replay=FILE        explains the batch on which a run produced NaN; FILE is in WORKDIR/replay.
                       It takes no other flag.
  --config.FIELD=VALUE overrides a field of the config. A field with several values takes them
                       separated by commas, or its flag several times.

  --help=SECTION       lists the fields of one section alone, as --help=data.clicks; with --config
                       those of that file's recipe, as --config=configs/recommend.py --help

The fields by section, with the values that they have if neither the file nor a flag sets them:

"""


DRY_RUN = "--dry-run"


@process.command
def entry(argv: list[str]) -> None:
    """Runs one command line and returns its exit code."""
    asked = [flag for flag in argv[1:] if re.match(r"(--help|-h)(=|$)", flag)]
    if asked:
        from sie_jax.commands.fields import listing
        from sie_jax.commands.flags import kind_of

        prefix = asked[0].partition("=")[2].removeprefix("config.")
        print("" if prefix else USAGE, listing(prefix, kind_of(argv)), sep="")
        return
    # imports take seconds, in which the user has been told and signals are heard
    with telling(_say, f"sie_jax {sie_jax.__version__}: loading JAX and the config"):
        from rich.console import Console

        from sie_jax import processes
        from sie_jax.commands.flags import parse
        from sie_jax.config import (
            ChainConfig,
            Config,
            ConversationConfig,
            RecommendationConfig,
            RetrievalConfig,
        )
        from sie_jax.recipes import (
            chain,
            conversation,
            dry_run,
            recommendation,
            relevance,
            replay,
            retrieval,
        )
        from sie_jax.report import terminal
        from sie_jax.tasks import classifies

    if replayed := [flag for flag in argv[1:] if flag.startswith("--replay=")]:
        if len(argv) > 2:
            raise UserError(
                "--replay takes no other flag: it reads the config in the run's workdir"
            )
        replay.replay(Path(replayed[0].partition("=")[2]), Console())
    else:
        given = parse([word for word in argv if word != DRY_RUN])
        if not isinstance(given.config, Config):
            if DRY_RUN in argv:
                raise UserError(f"{DRY_RUN} is of ranking configs: leave it out")
            if given.distributed:
                process.connect()
            recipes: dict[type, Any] = {
                RecommendationConfig: recommendation,
                RetrievalConfig: retrieval,
                ChainConfig: chain,
                ConversationConfig: conversation,
            }
            recipes[type(given.config)].run(given.config, given.workdir, redo=given.redo)
            return
        if DRY_RUN in argv:
            if given.distributed or given.redo:
                raise UserError(f"{DRY_RUN} makes nothing: leave --distributed and --redo out")
            dry_run.dry_run(given.config, given.workdir)
            return
        if given.distributed:
            process.connect()
        metrics = relevance.run(given.config, given.workdir, redo=given.redo)
        if processes.first():
            audited = classifies(given.config.train.task)
            print("Next:")
            for step in terminal.next_steps(metrics, given.workdir, argv[1:], audited=audited):
                print(step)


def _say(text: str) -> None:
    print(text, flush=True)
