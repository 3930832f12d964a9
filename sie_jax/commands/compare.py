"""`sie-jax compare`: two finished runs, or two columns of scores, query by query."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

import sie_jax
from sie_jax.commands import labelled, process
from sie_jax.data.schema import LabelScale
from sie_jax.errors import UserError
from sie_jax.evaluation import Predictions, measuring
from sie_jax.evaluation.intervals import Judgments
from sie_jax.evaluation.rivals import Rivals, rivals
from sie_jax.evaluation.verdict import METRIC, better, resolved
from sie_jax.files import read_json
from sie_jax.outputs import Outputs
from sie_jax.report import page, sections, terminal

SHOWN = 5
KEY = ["query_id", "example_id"]


class Compared(NamedTuple):
    """Pairs with the scores of two rankings, under the names that tell these apart.

    lines: what is to be told of how they were found.
    """

    pairs: pa.Table
    scale: LabelScale
    scores: dict[str, np.ndarray]
    lines: list[str]

    @property
    def judgments(self) -> Judgments:
        """The labels of the pairs."""
        query_ids, example_ids = (self.pairs[name].to_pylist() for name in KEY)
        labels, scale = self.pairs["label"].to_numpy(), self.scale
        return Judgments(labels, query_ids, example_ids, scale.names, scale.gains)


@process.command
def entry(argv: list[str]) -> None:
    """Runs one command line and returns its exit code."""
    options = _parser().parse_args(argv[1:])
    columns = labelled.names(options.scores)
    workdirs = [Path(name) for name in options.workdirs]
    of_table = bool(options.pairs) and len(columns) == 2 and not workdirs
    if not of_table and (len(workdirs) != 2 or options.pairs or columns):
        raise UserError(
            "give two workdirs, as in sie-jax compare runs/a runs/b, or --pairs=FILE with "
            "--scores=COLUMN,COLUMN"
        )
    if of_table and columns[0] == columns[1]:
        raise UserError(f"--scores={options.scores}: name two different columns")
    outputs = Outputs(Path(options.output)) if options.output else None
    if outputs is not None:
        if outputs.main.suffix != ".html":
            raise UserError(f"--output={options.output}: give a file that ends in .html")
        outputs.check([options.pairs] if of_table else workdirs)
    compared = _of_table(options, columns) if of_table else _of_workdirs(*workdirs)
    first, second = compared.scores
    judgments = compared.judgments
    found = {
        "ranker": first,
        **measuring.measured(
            {
                name: measuring.per_query(judgments, values)
                for name, values in compared.scores.items()
            },
            ranker=first,
        ),
    }
    both = {name: [Predictions(None, values)] for name, values in compared.scores.items()}
    duels = rivals(judgments, both, {"ranker": first, "best_baseline": second})
    assert duels is not None, "they have different names"
    means = [found["test"][name][METRIC]["value"] for name in (first, second)]
    difference = found["difference"][second][METRIC]
    claim = better((first, second), means, difference, found["queries"]["evaluated"])
    console = Console()

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False, highlight=False)

    for line in compared.lines:
        say(line)
    console.print(terminal.measured(found))
    say(claim)
    for line in _extremes(duels, compared.pairs):
        say(line)
    if outputs is not None:
        with outputs.whole() as (path,):
            _write(path, compared, found, duels, claim)
        say(f"Page: {outputs.main}")


def _of_table(options: Any, columns: list[str]) -> Compared:
    table = labelled.read(options, scores=columns)
    lines = labelled.told(table, options.pairs)
    for name in columns:
        if missing := table.missing(name):
            lines.append(f"{missing:,} pairs have no {name}: each is last in its query")
    return Compared(table.pairs, table.scale, {name: table.scores(name) for name in columns}, lines)


def _of_workdirs(first: Path, second: Path) -> Compared:
    """The rankers that two runs exported, on the test queries that both have."""
    if os.path.realpath(first) == os.path.realpath(second):
        raise UserError(f"{first} and {second} are one folder: give two workdirs")
    runs = [_Finished.read(folder) for folder in (first, second)]
    ours, theirs = (one.test for one in runs)
    if runs[0].scale != runs[1].scale:
        raise UserError(
            f"{first} and {second} have other labels or gains: {_scale(runs[0])}, and "
            f"{_scale(runs[1])}: compare runs that agree in them"
        )
    equal, unequal = _common(ours, theirs)
    counts = (len(ours["query_id"].unique()), len(theirs["query_id"].unique()))
    if not equal:
        raise UserError(
            f"{first} and {second} have no test query with the same items and labels in common "
            f"({counts[0]:,} and {counts[1]:,} test queries, {unequal:,} of them in both): compare "
            "runs of the same data and data.split_seed"
        )
    tables = [
        one.filter(pc.is_in(one["query_id"], pa.array(sorted(equal)))).sort_by(
            [(name, "ascending") for name in KEY]
        )
        for one in (ours, theirs)
    ]
    folders = (first, second) if first.name == second.name else (first.name, second.name)
    names = [f"{folder} ({one.ranker})" for folder, one in zip(folders, runs, strict=True)]
    left = [f"{_queries(unequal)} whose items or labels differ"] if unequal else []
    for folder, number in zip((first, second), counts, strict=True):
        if alone := number - len(equal) - unequal:
            left.append(f"{_queries(alone)} of {folder} alone")
    lines = [
        f"{_queries(len(equal))}, {tables[0].num_rows:,} pairs, with the same items and labels in "
        "both runs"
    ]
    lines += [f"left out: {', '.join(left)}"] if left else []
    scores = dict(zip(names, (one["score"].to_numpy() for one in tables), strict=True))
    return Compared(tables[0], runs[0].scale, scores, lines)


class _Finished(NamedTuple):
    """A finished run: its label scale, what it exported, and its scores of the test pairs."""

    scale: LabelScale
    ranker: str
    test: pa.Table

    @classmethod
    def read(cls, folder: Path) -> "_Finished":
        """Raises UserError where the folder holds no finished run."""
        if not folder.is_dir():
            raise UserError(
                f"{folder}: there is no such folder: give the workdir of a finished run"
            )
        if not (folder / "metrics.json").is_file():
            raise UserError(
                f"{folder} has no metrics.json, so no run was finished in it: give the workdir of "
                "a finished run, or run the command that made it to its end"
            )
        try:
            ranker = read_json(folder / "metrics.json")["verdict"]["ranker"]
            labels = read_json(folder / "data" / "prepared.json")
            ranked = pq.read_table(folder / "rankings.parquet")
            pairs = pq.read_table(
                folder / "data" / "pairs.parquet", columns=[*KEY, "query", "title", "label"]
            )
            # of several seeds the first is exported
            scores = ranked.select(KEY).append_column("score", ranked[f"{ranker}-0"])
            scale = LabelScale(tuple(labels["labels"]), tuple(labels["gains"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{folder} is no workdir of a finished run ({' '.join(str(error).split())}): give "
                "one, or run the command that made it to its end"
            ) from None
        return cls(scale, ranker, pairs.join(scores, KEY, join_type="inner"))


def _queries(number: int) -> str:
    return f"{number:,} test {'query' if number == 1 else 'queries'}"


def _common(ours: pa.Table, theirs: pa.Table) -> tuple[set[str], int]:
    """The queries with the same items and labels in both, and how many others are in both."""
    items: list[dict[str, set[tuple[str, str, int]]]] = [{}, {}]
    for of_query, table in zip(items, (ours, theirs), strict=True):
        rows = zip(*(table[name].to_pylist() for name in (*KEY, "title", "label")), strict=True)
        for query, *pair in rows:
            of_query.setdefault(query, set()).add(tuple(pair))
    both = items[0].keys() & items[1].keys()
    equal = {query for query in both if items[0][query] == items[1][query]}
    return equal, len(both) - len(equal)


def _scale(run: _Finished) -> str:
    pairs = zip(run.scale.names, run.scale.gains, strict=True)
    return ", ".join(f"{name} {gain:g}" for name, gain in pairs)


def _texts(duels: Rivals, pairs: pa.Table) -> list[str]:
    """The text of each query."""
    _, first = np.unique(duels.query_index, return_index=True)
    texts: list[str] = pairs["query"].take(pa.array(first)).to_pylist()
    return texts


def _extremes(duels: Rivals, pairs: pa.Table) -> list[str]:
    counts, texts = duels.counts(), _texts(duels, pairs)
    lines = [
        f"{duels.ranker} is higher on {counts['won']:,} queries, lower on {counts['lost']:,}, "
        f"equal on {counts['equal']:,}"
    ]
    for name, queries in zip((duels.ranker, duels.baseline), duels.apart(SHOWN), strict=True):
        if queries:
            lines.append(f"{METRIC}, where {name} is furthest ahead:")
        for at in queries:
            ours, theirs = duels.ours[at], duels.theirs[at]
            text = " ".join(texts[at].split())
            lines.append(f"  {ours - theirs:+.3f}  ({ours:.3f} against {theirs:.3f})  {text}")
    return lines


def _write(
    path: Path, compared: Compared, found: dict[str, Any], duels: Rivals, claim: str
) -> None:
    names, above = compared.scale.names, resolved(found["difference"][duels.baseline][METRIC])
    lists = sections.queries.duels(duels, compared.pairs, names)
    parts = [
        sections.verdict.part({"verdict": {"beats_baseline": above, "notes": [claim]}}),
        sections.comparison.part(found),
        sections.queries.part(duels.ranker, duels.baseline, duels.counts(), *lists, role=""),
    ]
    page.write(
        path,
        title=f"{duels.ranker} and {duels.baseline}",
        parts=parts,
        facts={"sie_jax": sie_jax.__version__},
    )


def _parser() -> process.Parser:
    parser = process.Parser(
        prog="sie-jax compare",
        description=(
            "Compares what two runs exported on the test queries that both have, or two columns of "
            "scores of one labelled table. All differences are paired by query and are the first "
            "minus the second."
        ),
    )
    parser.add_argument("workdirs", nargs="*", metavar="WORKDIR", help="two finished runs")
    parser.add_argument(
        "--scores", default="", metavar="COLUMN,COLUMN", help="with --pairs: two columns of scores"
    )
    parser.add_argument(
        "--output", type=process.path, metavar="FILE", help="an .html file for the page"
    )
    labelled.add_flags(parser)
    return parser
