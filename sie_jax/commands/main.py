"""`sie-jax COMMAND`: finds the command by its name; each imports what it needs, when it runs."""

import difflib
import importlib
from typing import NoReturn

import sie_jax
from sie_jax.commands import process
from sie_jax.errors import UserError

COMMANDS = {
    "train": "trains rankers on judged pairs or clicks, and says whether they beat the baselines",
    "prepare": "does the data work of a run on Apache Beam, for train to go on from",
    "predict": "scores the pairs of a table by the model that a run left",
    "audit": "lists the labels of a table that are most worth checking, or applies corrections",
    "evaluate": "measures a column of scores, a model or a TREC run against labels and baselines",
    "compare": "compares two runs, or two columns of scores, query by query",
}
"""What each command does; it is `entry` in the module of its name."""


def entry(argv: list[str]) -> int:
    """Runs one command line, whose first word is the program's name, and returns its exit code."""
    if len(argv) > 1 and argv[1] in COMMANDS:
        module = importlib.import_module(f"sie_jax.commands.{argv[1]}")
        code: int = module.entry([f"sie-jax {argv[1]}", *argv[2:]])
        return code
    return _without_command(argv)


def main() -> NoReturn:
    """The console script."""
    process.main(entry)


def usage() -> str:
    """What `sie-jax --help` prints."""
    lines = [f"  {name:<9} {does}" for name, does in COMMANDS.items()]
    return "\n".join([
        "sie-jax COMMAND [FLAGS]        one of:",
        "",
        *lines,
        "",
        "sie-jax COMMAND --help lists its flags, and sie-jax --version prints the version.",
    ])  # fmt: skip


@process.command
def _without_command(argv: list[str]) -> None:
    word = argv[1] if len(argv) > 1 else "--help"
    if word in ("--help", "-h"):
        print(usage())
    elif word == "--version":
        print(sie_jax.__version__)
    elif word.startswith("-"):
        raise UserError(
            f"sie-jax {word}: the command comes first, as in sie-jax train {word}; the commands "
            f"are {', '.join(COMMANDS)}"
        )
    else:
        near = difflib.get_close_matches(word, COMMANDS, n=1)
        fix = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}"
        raise UserError(f"sie-jax {word}: there is no such command; {fix}")
