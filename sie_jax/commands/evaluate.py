"""`sie-jax evaluate`: measures scores that are there, beside what could rank for free."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console

from sie_jax import serving
from sie_jax.commands import labelled, process
from sie_jax.data.schema import ATTRIBUTE, CURRENT, NUMERIC, normalise_query
from sie_jax.errors import UserError
from sie_jax.evaluation import measuring, scored, trec_pair
from sie_jax.evaluation.scored import Scored
from sie_jax.evaluation.verdict import BASELINES
from sie_jax.outputs import Outputs
from sie_jax.report import terminal
from sie_jax.serving import ranking

CUTOFF = 10  # of nDCG@10 and recall@10
WAYS = (
    "give --pairs=FILE with --scores=COLUMN or --model=FOLDER, or --qrels=FILE with --run=FILE; "
    "--help lists the flags"
)


@process.command
def entry(argv: list[str]) -> None:
    """Runs one command line and returns its exit code."""
    options = _parser().parse_args(argv[1:])
    given = tuple(
        name for name in ("pairs", "scores", "model", "qrels", "run") if getattr(options, name)
    )
    ways: dict[tuple[str, ...], Callable[[Any], tuple[dict[str, Any], list[str]]]] = {
        ("pairs", "scores"): _of_column,
        ("pairs", "model"): _of_model,
        ("qrels", "run"): _of_trec,
    }
    if given not in ways:
        what = " and ".join(f"--{name}" for name in given) or "nothing"
        raise UserError(f"{what} is given: {WAYS}")
    outputs = Outputs(Path(options.output)) if options.output else None
    if outputs is not None:
        if outputs.main.suffix != ".json":
            raise UserError(f"--output={options.output}: give a file that ends in .json")
        outputs.check([getattr(options, name) for name in given if name != "scores"])
    found, lines = ways[given](options)
    console = Console()
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    console.print(terminal.measured(found))
    console.print(terminal.verdict(found))
    if outputs is not None:
        with outputs.whole() as (path,):
            path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", "utf-8")
        console.print(f"Metrics: {outputs.main}", soft_wrap=True, markup=False, highlight=False)


def _of_column(options: Any) -> tuple[dict[str, Any], list[str]]:
    """The content of the output, and what is to be told, for a column of scores."""
    table, name = labelled.read(options, scores=[options.scores]), options.scores
    lines = _told(table, options.pairs)
    if missing := table.missing(name):
        lines.append(f"{missing:,} pairs have no {name}: each is last in its query")
    run = f"column {name}" if name in BASELINES else name
    return _measured(table, run, table.scores(name)), lines


def _of_model(options: Any) -> tuple[dict[str, Any], list[str]]:
    """Likewise, for the model in a folder."""
    scorer = serving.load(options.model)
    further = {} if scorer.ranking is None else dict(scorer.ranking.further)
    options.current = further.pop(CURRENT, options.current)
    columns = {
        prefix: [column for name, column in further.items() if name.startswith(prefix)]
        for prefix in (ATTRIBUTE, NUMERIC)
    }
    scale = scorer.scale
    known = {} if scale is None else {"labels": scale.names, "gains": scale.gains}
    table = labelled.read(options, scores=columns[NUMERIC], attributes=columns[ATTRIBUTE], **known)
    made = serving.score(scorer, table.pairs.select(_fields(table, scorer)).to_pylist())
    lines = [*scorer.notes, *_told(table, options.pairs)]
    scores, reasons = made["score"].to_numpy(), made["reason"].drop_null().value_counts()
    for one in reasons.to_pylist():
        lines.append(f"{one['counts']:,} pairs have no score: {one['values']}, last in their query")
    values = np.where(np.isfinite(scores), scores, np.nan)
    found = _measured(table, "model", scored.baselines.current(values))
    if scorer.ranking is not None:
        said = ranking.short_lists(scorer.ranking.ranker, _list_lengths(table))
        lines += [said] if said else []
    workdir = Path(os.path.abspath(options.model)).parent
    if (trained_on := _known_queries(workdir)) is not None:
        queries = {normalise_query(one) for one in table.pairs["query"].unique().to_pylist()}
        found["queries"]["known_to_model"] = number = len(queries & trained_on)
        lines.append(
            f"{number:,} of the table's {len(queries):,} queries are training or validation "
            "queries of the run that left the model"
            + (": it is better on those than on new ones" if number else "")
        )
    return found, lines


def _known_queries(workdir: Path) -> set[str] | None:
    """The queries that a run's model was trained or chosen on; None where this is no workdir."""
    file = workdir / "data" / "pairs.parquet"
    if not file.is_file() or not file.with_name("prepared.json").is_file():  # anybody's table
        return None
    try:
        pairs = pq.read_table(file, columns=["query"], filters=[("split", "!=", "test")])
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} cannot be read ({' '.join(str(error).split())}): restore it, or copy the "
            "model's folder to another place"
        ) from None
    return {normalise_query(one) for one in pairs["query"].unique().to_pylist()}


def _list_lengths(table: Scored) -> np.ndarray:
    """How many items of the table each of its queries has."""
    return np.unique(np.asarray(table.judgments.query_ids, str), return_counts=True)[1]


def _told(table: Scored, path: str) -> list[str]:
    lines, longest = labelled.told(table, path), int(_list_lengths(table).max())
    if longest <= CUTOFF:
        lines.append(
            f"no query of the table has more than {longest} item{'s' * (longest > 1)}: its "
            f"recall@{CUTOFF} is 1 whatever ranks, and nDCG@{CUTOFF} is about the order of these "
            "few alone"
        )
    return lines


def _fields(table: Scored, scorer: serving.Scorer) -> list[str]:
    return [name for name in scorer.fields if name in table.pairs.column_names]


def _measured(table: Scored, run: str, scores: np.ndarray) -> dict[str, Any]:
    judgments = table.judgments
    everyone = {run: scores, **scored.free(table.pairs)}
    found = measuring.measured(
        {name: measuring.per_query(judgments, one) for name, one in everyone.items()}, ranker=run
    )
    kept = table.pairs.num_rows
    rows = {"read": table.read, "kept": kept, "rejected": table.read - kept}
    return {"rows": rows, "rejected": table.rejected, "ranker": run, **found}


def _of_trec(options: Any) -> tuple[dict[str, Any], list[str]]:
    """Likewise, for a run on qrels."""
    files = {"qrels": trec_pair.read_qrels(Path(options.qrels))}
    files["run"] = trec_pair.read_run(Path(options.run))
    pair = trec_pair.measure(files["qrels"], files["run"])
    counts = {
        **{f"{name}: {why}": n for name, one in files.items() for why, n in one.left_out.items()},
        **{fact: number for fact, number in pair.facts.items() if number},
    }
    lines = [f"{getattr(options, name)}: {one.lines:,} lines" for name, one in files.items()]
    lines += [f"{number:,} {fact}" for fact, number in counts.items()]
    lines += [
        f"the gain of a document is its grade, and from grade {pair.highest:g}, the highest, it is "
        "relevant to mrr and recall@10",
        "there are no texts, so there is no baseline to compare with",
    ]
    found = measuring.measured({"run": pair.per_query}, ranker="run")
    lines_of = {name: one.lines for name, one in files.items()}
    return {"lines": lines_of, "counts": counts, "ranker": "run", **found}, lines


def _parser() -> process.Parser:
    parser = process.Parser(
        prog="sie-jax evaluate",
        description=(
            "Measures a column of scores, or a model, on a labelled table, beside the baselines "
            "random, token_overlap, bm25 and current; or a TREC run on qrels. nDCG, MRR and recall "
            "with 95 % intervals over queries, and a verdict."
        ),
    )
    labelled.add_flags(parser)
    parser.add_argument("--scores", default="", metavar="COLUMN", help="the scores to measure")
    parser.add_argument(
        "--model", type=process.path, metavar="FOLDER", help="the folder model/ of a run"
    )
    parser.add_argument(
        "--qrels", type=process.path, metavar="FILE", help="lines: query_id 0 document grade"
    )
    parser.add_argument(
        "--run",
        type=process.path,
        metavar="FILE",
        help="lines: query_id Q0 document rank score tag",
    )
    parser.add_argument(
        "--output", type=process.path, metavar="FILE", help="a .json file for all of it"
    )
    return parser
