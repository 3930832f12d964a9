"""`python -m sie_jax.audit`: ranks a table's labels by its predictions, or applies corrections."""

from pathlib import Path

from sie_jax.commands import process
from sie_jax.evaluation import audit, corrections

COLUMNS = {"query": "query", "title": "title", "label": "label"} | dict.fromkeys(
    ("example_id", "query_id", "item_id", "split"), ""
)


@process.command
def entry(argv: list[str]) -> None:
    """Runs one command line and returns its exit code."""
    options = _parser().parse_args(argv[1:])
    labels = [name.strip() for name in options.labels.split(",") if name.strip()]
    output = Path(options.output)
    columns = {field: getattr(options, field) for field in COLUMNS}
    if options.apply:
        applied = corrections.apply(
            Path(options.apply), options.pairs, output, labels=labels, columns=columns
        )
        print(f"{applied.rows} pairs in {output}")
        print(f"{applied.changed} labels changed, {applied.confirmed} confirmed")
        rejected = applied.rejected
    else:
        counts = audit.rank_table(options.pairs, output, labels=labels, columns=columns)
        print(f"{counts.ranked} pairs ranked in {output}")
        rejected = counts.rejected
    for reason, rows in rejected.items():
        print(f"{rows} rows left out, {reason}: see {audit.rejected_file(output)}")


def _parser() -> process.Parser:
    parser = process.Parser(
        prog="sie-jax audit",
        description=(
            "Ranks the labels of a table that are most worth checking by the predictions beside "
            "them: a column probability_LABEL for each label. With --apply, writes the table with "
            "corrected labels."
        ),
    )
    parser.add_argument(
        "--pairs",
        required=True,
        type=process.path,
        help="the table: .csv, .tsv, .jsonl or .parquet; with --apply also the workdir of a run",
    )
    parser.add_argument(
        "--apply", type=process.path, metavar="CSV", help="an audit with corrected labels"
    )
    parser.add_argument("--output", required=True, type=process.path, help="the .csv file to write")
    parser.add_argument("--labels", default="", help="lowest grade first: bad,fair,good")
    for field, column in COLUMNS.items():
        parser.add_argument(
            f"--{field}", default=column, metavar="COLUMN", help=f"the column of the {field}"
        )
    return parser
