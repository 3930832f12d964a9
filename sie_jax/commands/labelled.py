"""The flags that name a labelled table, for every command that measures scores on one."""

from collections.abc import Sequence
from typing import Any

from sie_jax.commands import process
from sie_jax.data.readers import files
from sie_jax.errors import UserError
from sie_jax.evaluation import scored
from sie_jax.evaluation.scored import Scored

FIELDS = ("query", "title", "label", "example_id", "query_id", "item_id", "text", "current")
NEEDED = ("query", "title", "label")


def add_flags(parser: process.Parser) -> None:
    """Adds the table, its columns, and the scale of its labels."""
    parser.add_argument(
        "--pairs",
        type=process.path,
        metavar="FILE",
        help="a labelled table: .csv, .tsv, .jsonl or .parquet",
    )
    for field in FIELDS:
        default = field if field in NEEDED else ""
        helped = f"the column of the {field}"
        if field == "current":
            helped = "the column of the score that ranks today, which is then a baseline too"
        parser.add_argument(f"--{field}", default=default, metavar="COLUMN", help=helped)
    parser.add_argument(
        "--labels", default="", help="lowest grade first: bad,fair,good; 0,1,… need none"
    )
    parser.add_argument(
        "--gains", default="", help="one for each label, lowest grade first; k/(K − 1) if not given"
    )


def names(text: str) -> list[str]:
    """The parts of a flag whose values are separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def numbers(flag: str, text: str) -> list[float]:
    """Likewise, of numbers; raises UserError that names the flag."""
    try:
        return [float(name) for name in names(text)]
    except ValueError:
        raise UserError(f"{flag}={text}: give numbers separated by commas") from None


def read(
    options: Any, *, scores: Sequence[str] = (), attributes: Sequence[str] = (), **known: Any
) -> Scored:
    """The table that the flags name, with columns of scores: those of --scores, or of a model.

    known: `labels` and `gains`, of a model, where the flags give none.
    """
    columns = {field: getattr(options, field) for field in FIELDS}
    files.find(options.pairs)  # a table that is not there is the first thing to say
    if options.current in scores:
        raise UserError(
            f"--current={options.current} is the score that is measured: leave it out, or name the "
            "column of another score"
        )
    return scored.read(
        options.pairs,
        columns=columns,
        scores=scores,
        attributes=attributes,
        labels=names(options.labels) or known.get("labels", ()),
        gains=numbers("--gains", options.gains) or known.get("gains", ()),
        flags={"--scores": scores} if options.scores else {},
    )


def told(table: Scored, path: str) -> list[str]:
    """What was read and left out, a line each."""
    lines = [f"{path}: {table.read:,} rows read, {table.pairs.num_rows:,} measured on"]
    return lines + [f"{rows:,} rows left out: {why}" for why, rows in table.rejected.items()]
