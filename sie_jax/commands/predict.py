"""`python -m sie_jax.predict`: scores the pairs of a table by the model that a run left."""

from pathlib import Path

from rich.console import Console

from sie_jax import serving
from sie_jax.commands import process
from sie_jax.errors import UserError
from sie_jax.serving.settings import SHORTEST
from sie_jax.serving.table import rejected_file


@process.command
def entry(argv: list[str]) -> None:
    """Runs one command line and returns its exit code."""
    options = _parser().parse_args(argv[1:])
    counts = serving.score_table(
        options.model,
        options.input,
        options.output,
        columns={field: getattr(options, field) for field in serving.FIELDS},
        settings=_settings(options.gains, options.max_length),
        encoder_alone=options.encoder_alone,
        batch_size=options.batch_size,
        console=Console(stderr=True),
    )
    print(f"{counts.scored} pairs scored in {options.output}")
    for reason, rows in counts.rejected.items():
        print(f"{rows} rows left out, {reason}: see {rejected_file(Path(options.output))}")


def _parser() -> process.Parser:
    parser = process.Parser(
        prog="sie-jax predict",
        description="Scores the pairs of a table by the model that a run left.",
    )
    parser.add_argument(
        "--model", required=True, type=process.path, help="the folder model/ of a run's workdir"
    )
    parser.add_argument(
        "--input",
        required=True,
        type=process.path,
        help="the table: .csv, .tsv, .jsonl or .parquet",
    )
    parser.add_argument(
        "--output", required=True, type=process.path, help="the .parquet file to write"
    )
    parser.add_argument("--batch_size", type=int, default=64, help="pairs at a time")
    parser.add_argument(
        "--encoder_alone",
        action="store_true",
        help="rank by the folder's encoder, whatever ranker.json says",
    )
    parser.add_argument(
        "--gains", default="", help="of the labels, lowest grade first, if the folder has none"
    )
    parser.add_argument(
        "--max_length",
        type=int,
        default=0,
        help="the most tokens of a pair, if the folder has none",
    )
    for field in serving.FIELDS:
        default = field if field in ("query", "title") else ""
        parser.add_argument(
            f"--{field}", default=default, metavar="COLUMN", help=f"the column of the {field}"
        )
    return parser


def _settings(gains: str, max_length: int) -> serving.Settings | None:
    """Those that the flags give, or None, which stands for the folder's own."""
    if not gains and not max_length:
        return None
    try:
        values = tuple(float(gain) for gain in gains.split(","))
    except ValueError:
        raise UserError(f"--gains={gains}: give numbers separated by commas") from None
    if max_length < SHORTEST:
        raise UserError(
            f"--max_length={max_length}: give at least {SHORTEST}, together with --gains"
        )
    return serving.Settings(values, max_length)
