"""The kinds of inputs of `fuzz.py` that are judgment lists, events, catalogues, qrels and runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mutations
from fuzz_kinds import PREDICT, TRAIN, Draw, Kind, checked_and_prepared

from sie_jax.commands import evaluate, predict

QUERIES = 12
EVALUATE = ("-m", "sie_jax", "evaluate")
LISTS = ("ltr.txt", "list.qrels", "queries.tsv", "items.csv")


def sound(folder: Path) -> None:
    """Writes the sound files, beside those of `fuzz_kinds.sound`; each is read once."""
    pairs = [(f"q{at // 4}", f"i{at}", at % 4) for at in range(4 * QUERIES)]
    texts = {f"q{at}": f"red lamp {at}" for at in range(QUERIES)}
    files = {
        "ltr.txt": [
            *(f"# qid:{one}: {text}" for one, text in texts.items()),
            *(f"{grade} qid:{one} 1:0.{grade} # {item} lamp {item}" for one, item, grade in pairs),
        ],
        "list.qrels": [f"{one} 0 {item} {grade}" for one, item, grade in pairs],
        "list.run": [f"{one} Q0 {item} 1 {5 - grade} bm25" for one, item, grade in pairs],
        "queries.tsv": [f"{one}\t{text}" for one, text in texts.items()],
        "items.csv": ["item_id,title", *(f"{item},lamp {item}" for _, item, _ in pairs)],
        "bare.csv": ["query,item_id", *(f"{texts[one]},{item}" for one, item, _ in pairs)],
    }
    for name, lines in files.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    events: list[dict[str, Any]] = []
    for one, text in texts.items():
        for turn in range(4):  # each item at each of four places
            key, hits = f"{one}-{turn}", [f"i{(at + turn) % 4}" for at in range(4)]
            named = {"query_id": key, "user_query": text, "client_id": key}
            events.append({**named, "query_response_hit_ids": hits})
            for at, item in enumerate(hits, 1):
                thing = {"object_id": item, "name": f"lamp {item}"}
                attributes = {"object": thing, "position": {"ordinal": at}, "dwell_time": 3.5}
                done = ["impression", *(["click"] * (at == 1 + turn % 2))]
                events += [
                    {"action_name": action, **named, "event_attributes": attributes}
                    for action in done
                ]
    (folder / "events.ndjson").write_text("".join(f"{json.dumps(one)}\n" for one in events))
    for flags in (_list("ltr.txt"), _list("list.qrels"), _events()):
        _accepted(checked_and_prepared(["", *flags, "--workdir=tried"]), flags)
        shutil.rmtree(folder / "tried")
    _accepted(evaluate.entry(["", *_qrels()]), _qrels())
    _accepted(predict.entry(["", *_joined()]), _joined())
    for left in [one for name in ("scored", "measured") for one in folder.glob(f"*{name}.*")]:
        left.unlink()


def _accepted(code: int, flags: list[str]) -> None:
    if code:
        raise ValueError(f"the sound input is refused: {' '.join(flags)}")


def _source(name: str, path: str) -> list[str]:
    flags = ["--config=tiny.py", f"--config.data.source={name}", f"--config.data.path={path}"]
    return [*flags, "--config.data.columns.example_id=", "--config.data.columns.split="]


def _list(name: str) -> list[str]:
    flags = _source("judgments", name)
    if name == "list.qrels":
        flags += ["--config.data.judgments.queries=queries.tsv"]
        flags += ["--config.data.items.path=items.csv"]
    return flags


def _events() -> list[str]:
    few = ["--config.data.clicks.minimum_impressions=1", "--config.data.ubi.minimum_dwell=1"]
    return [*_source("ubi", "events.ndjson"), *few]


def _qrels() -> list[str]:
    return ["--qrels=list.qrels", "--run=list.run", "--output=measured.json"]


def _joined() -> list[str]:
    flags = ["--model=model", "--input=bare.csv", "--items=items.csv"]
    return [*flags, "--output=scored.parquet"]


def _changed(
    names: tuple[str, ...], flags: Callable[[str], list[str]]
) -> Callable[[Draw, Path], tuple[list[str], str]]:
    """Changes one of these files; flags are those of the name."""

    def change(draw: Draw, folder: Path) -> tuple[list[str], str]:
        name = draw.choice(names)
        return flags(name), mutations.file(draw, folder / name)

    return change


def _of_list(name: str) -> list[str]:
    return [*_list("ltr.txt" if name == "ltr.txt" else "list.qrels"), "--workdir=made"]


SOURCES = {
    "judgment lists": Kind(150, 3, checked_and_prepared, TRAIN, _changed(LISTS, _of_list)),
    "events": Kind(
        120, 3, checked_and_prepared, TRAIN,
        _changed(("events.ndjson",), lambda _: [*_events(), "--workdir=made"]),
    ),
    "qrels and runs": Kind(
        180, 6, evaluate.entry, EVALUATE,
        _changed(("list.qrels", "list.run"), lambda _: _qrels()), "measured.json",
    ),
    "catalogues": Kind(
        120, 6, predict.entry, PREDICT,
        _changed(("items.csv", "bare.csv"), lambda _: _joined()), "scored.parquet",
    ),
}  # fmt: skip
