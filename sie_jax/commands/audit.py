"""`python -m sie_jax.audit`: ranks a table's labels by its predictions, or applies corrections."""

import argparse
from collections import Counter
from pathlib import Path

from sie_jax.commands import process
from sie_jax.data.sources.table import NEEDED
from sie_jax.errors import UserError
from sie_jax.evaluation import audit, audit_summary, corrections, label_errors
from sie_jax.evaluation.audit_table import FURTHER, TableOfPairs, check_output, rejected_file
from sie_jax.evaluation.predictions import PROBABILITY
from sie_jax.files import write_json
from sie_jax.outputs import Outputs
from sie_jax.report import annotate
from sie_jax.tables.spool import write_parquet


@process.command
def entry(argv: list[str]) -> None:
    """Runs one command line and returns its exit code."""
    options = _parser().parse_args(argv[1:])
    labels = [name.strip() for name in options.labels.split(",") if name.strip()]
    output = Path(options.output)
    given = {field: getattr(options, field) for field in (*NEEDED, *FURTHER)}
    columns = {field: column for field, column in given.items() if column is not None}
    if options.apply:
        applied = corrections.apply(
            Path(options.apply), options.pairs, output, labels=labels, columns=columns
        )
        print(f"{applied.rows} pairs in {output}")
        print(f"{applied.changed} labels changed, {applied.confirmed} confirmed")
        rejected = applied.rejected
    else:
        pairs = TableOfPairs(path=options.pairs, columns=columns, labels=labels)
        rejected = _rank(pairs, output, options)
    for reason, rows in rejected.items():
        print(f"{rows} rows left out, {reason}: see {rejected_file(output)}")


def _rank(pairs: TableOfPairs, output: Path, options: argparse.Namespace) -> dict[str, int]:
    """Writes the list of a table and what belongs to it; says so, and what was left out."""
    check_output(output)
    if options.top is not None and options.top < 1:
        raise UserError(f"--top={options.top}: give at least 1")
    further = (".jsonl", ".html", ".json")
    outputs = Outputs(output, (*map(output.with_suffix, further), rejected_file(output)))
    outputs.check([pairs.path])
    judged, rejected = pairs.judged(options.probabilities)
    found = audit.ranked(judged, score=options.score, top=options.top)
    sentences = audit_summary.sentences(found.summary)
    with outputs.whole() as (table, lines, page, summary, others):
        audit.write(table, lines, found.rows(), found.further)
        annotate.write(
            page,
            found.rows(),
            name=output.stem,
            labels=judged.names,
            further=found.further,
            sentences=sentences,
            most=options.top,
        )
        write_json(summary, found.summary)
        if rejected.num_rows:
            write_parquet(others, rejected)
    number = found.summary["pairs"] + found.summary["found_by"][audit.CONFLICT]
    listed = "" if options.top is None else f", the first {min(options.top, number)} of them"
    print(f"{number} pairs ranked{listed} in {output}")
    for by, text in (
        (audit.CONFLICT, "have conflicting labels"),
        (audit.NEAR_DUPLICATE, "have another label than a title of the same words"),
    ):
        if times := found.summary["found_by"][by]:
            print(f"{times} of them {text}: they come first")
    for sentence in sentences:
        print(sentence)
    print(f"check them in a spreadsheet, or in a browser: {output.with_suffix('.html')}")
    return dict(Counter(rejected["reason"].to_pylist()))


def _parser() -> process.Parser:
    parser = process.Parser(
        prog="sie-jax audit",
        description=(
            "Ranks the labels of a table that are most worth checking by the predictions beside "
            "them, estimates how many are wrong, and writes a page to check them on. With --apply, "
            "writes the table with corrected labels."
        ),
    )
    parser.add_argument(
        "--pairs",
        required=True,
        type=process.path,
        help="the table: .csv, .tsv, .jsonl or .parquet; with --apply also the workdir of a run",
    )
    parser.add_argument(
        "--apply",
        type=process.path,
        metavar="CSV",
        help="an audit with corrected labels, or the corrections that its page saved",
    )
    parser.add_argument("--output", required=True, type=process.path, help="the .csv file to write")
    parser.add_argument(
        "--labels",
        default="",
        help="lowest grade first: bad,fair,good; not needed where the labels are 0, 1, 2, …",
    )
    parser.add_argument(
        "--probabilities",
        default=PROBABILITY,
        type=process.path,
        metavar="PREFIX|COLUMN,COLUMN",
        help=(
            "what the columns of probabilities begin with, in front of the label; or their names, "
            "lowest grade first (default: %(default)s)"
        ),
    )
    parser.add_argument(
        "--top", type=int, metavar="N", help="list the first N rows alone (default: all)"
    )
    parser.add_argument(
        "--score",
        default=label_errors.SCORES[0],
        choices=label_errors.SCORES,
        help="what the rows are ranked by (default: %(default)s)",
    )
    for field in (*NEEDED, *FURTHER):
        without = f"{field}, if there is one" if field in FURTHER else field
        parser.add_argument(
            f"--{field}", metavar="COLUMN", help=f"the column of the {field} (default: {without})"
        )
    return parser
