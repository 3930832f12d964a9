"""`python -m sie_jax.predict`: scores the pairs of a table by the model that a run left."""

from pathlib import Path
from typing import TYPE_CHECKING

from sie_jax.commands import process
from sie_jax.data.schema import PAIR_FIELDS
from sie_jax.errors import UserError
from sie_jax.outputs import of_table

if TYPE_CHECKING:
    from sie_jax import serving


@process.command
def entry(argv: list[str]) -> None:
    """Runs one command line and returns its exit code."""
    options = _parser().parse_args(argv[1:])
    if not options.items and not options.input:
        raise UserError("there is nothing to score: give a table by --input, or items by --items")
    source = options.input or options.items
    outputs = of_table(Path(options.output))
    outputs.check((options.model, source, *([options.items] if options.items else [])))

    from rich.console import Console

    from sie_jax import serving  # takes seconds: what is wrong before is said before

    columns = {field: getattr(options, field) for field in PAIR_FIELDS}
    query = ""
    if not options.input:
        query = columns.pop("query")
        if not query:
            raise UserError(
                "--items alone has the items of one query: give that query by --query, or a table "
                "of pairs by --input"
            )
    elif columns["query"] is None:
        columns["query"] = "query"
    counts = serving.score_table(
        options.model,
        serving.Pairs(source, columns, query, options.items or "" if options.input else ""),
        options.output,
        settings=_settings(options.gains, options.max_length),
        encoder_alone=options.encoder_alone,
        batch_size=options.batch_size,
        top=options.top,
        console=Console(stderr=True),
    )
    print(f"{counts.scored} pairs scored in {options.output}")
    if counts.written < counts.scored:
        print(f"{counts.written} of them are written, the {options.top} best of each query")
    for reason, rows in counts.rejected.items():
        print(f"{rows} rows left out, {reason}: see {outputs.beside[0]}")


def _parser() -> process.Parser:
    parser = process.Parser(
        prog="sie-jax predict",
        description=(
            "Scores the pairs of a table, or a catalogue for one query, by the model that a run "
            "left."
        ),
    )
    parser.add_argument(
        "--model", required=True, type=process.path, help="the folder model/ of a run's workdir"
    )
    parser.add_argument(
        "--input",
        type=process.path,
        help="the table of pairs: .csv, .tsv, .jsonl or .parquet",
    )
    parser.add_argument(
        "--items",
        type=process.path,
        metavar="CATALOGUE",
        help=(
            "a table of items: without --input all are ranked for the one --query; with it, what "
            "it has of the items of the pairs"
        ),
    )
    parser.add_argument(
        "--output",
        required=True,
        type=process.path,
        help="the file to write: .csv, .jsonl or .parquet",
    )
    parser.add_argument(
        "--top", type=int, metavar="K", help="write only the K best of each query, best first"
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
    parser.add_argument(
        "--query",
        metavar="COLUMN",
        help="the column of the query (query); with --items alone the query itself",
    )
    parser.add_argument(
        "--title", default="title", metavar="COLUMN", help="the column of the title (title)"
    )
    for field in PAIR_FIELDS[2:]:
        default = ", if not the one of that name" if field.endswith("id") else ""
        parser.add_argument(
            f"--{field}", default="", metavar="COLUMN", help=f"the column of the {field}{default}"
        )
    return parser


def _settings(gains: str, max_length: int) -> "serving.Settings | None":
    """Those that the flags give, or None, which stands for the folder's own."""
    from sie_jax.serving import settings

    if not gains and not max_length:
        return None
    try:
        values = tuple(float(gain) for gain in gains.split(",")) if gains else ()
    except ValueError:
        raise UserError(f"--gains={gains}: give numbers separated by commas") from None
    if max_length < settings.SHORTEST:
        raise UserError(
            f"--max_length={max_length}: give at least {settings.SHORTEST}, together with --gains"
        )
    return settings.Settings(values, max_length)
