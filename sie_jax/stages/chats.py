"""Chats: reads and splits conversations, and learns with which of their words a search is asked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sie_jax import processes, remote
from sie_jax.data.chats import FILE, ITEMS, Chats, ChatsConfig
from sie_jax.errors import UserError
from sie_jax.evaluation import retrieval
from sie_jax.evaluation.retrieval import NOTHING, Wanted
from sie_jax.files import digests, read_json, write_json
from sie_jax.retrieval import selection
from sie_jax.retrieval.selection import Selection
from sie_jax.serving import conversing
from sie_jax.serving.conversing import ALL, LAST, RARE, TURNS, WORDS
from sie_jax.serving.finding import Chain
from sie_jax.stages.histories import counted
from sie_jax.tables.spool import write_parquet
from sie_jax.workdir import Job, Made, stage

CLEANING, REJECTED, SELECTION = "cleaning.json", "rejected.parquet", "selection.json"
DEPTH, METRIC = 50, "ndcg@50"
LONGEST = 4
"""The most last turns that are tried."""
LEARNT_FROM = 1000
"""The most training chats that effects are learnt from: each is searched for about 15 times."""
AT_ONCE = 512
"""Chats that are searched for at a time; it bounds memory."""


def inputs_of(paths: Mapping[str, str]) -> dict[str, Any]:
    """What tells the content of every file that is read."""
    found = {name: digests(Path(remote.local(path))) for name, path in paths.items()}
    return {
        name: {file: f"content {one[:16]}" for file, one in known.items()}
        for name, known in found.items()
    }


def read(made: Made[Chats]) -> Chats:
    """The conversations."""
    return Chats.load(made.folder)


@stage(leaves=(FILE, ITEMS, CLEANING, REJECTED), read=read)
def chats(job: Job, *, data: ChatsConfig, inputs: Mapping[str, Any]) -> None:
    """Leaves the conversations, the rows that were left out and why, and what was counted."""

    def leave() -> None:
        found = data.read()
        found.save(job.folder)
        write_parquet(job.folder / REJECTED, found.unreadable)
        told = {
            "conversations": len(found.ids),
            "without_chosen": sum(not one for one in found.chosen),
            "without_turns": sum(not one for one in found.turns),
            **found.counts,
            "rejected": counted(found.unreadable),
        }
        write_json(job.folder / CLEANING, told)
        reasons = counted(found.unreadable)
        left_out = ", ".join(f"{count:,} {name}" for name, count in reasons.items())
        job.say(
            f"{told['conversations']:,} conversations, in {told['without_chosen']:,} nothing was "
            "chosen" + (f"; rows left out: {left_out}" if left_out else "")
        )

    processes.alone(leave)


class Asking(NamedTuple):
    """How a search is best asked, what was learnt, and what each way gives on validation chats."""

    asks: str
    selection: Selection
    values: dict[str, float]


def read_asking(made: Made[Asking]) -> Asking:
    """How a search is best asked."""
    told = read_json(made.folder / SELECTION)
    return Asking(told["asks"], conversing.selection_of(told["selection"]), told["values"])


@stage(leaves=(SELECTION,), read=read_asking, trains=False)
def ask(job: Job, conversations: Made[Chats], *, chain: str, inputs: Mapping[str, Any]) -> None:
    """Leaves selection.json: what turns and words do to what is found, and which way is best.

    Learnt from the training chats, chosen on the validation chats by nDCG@50. chain: the folder of
    a chain; "" where words alone search. inputs: what tells its content.
    """
    found = conversations.value
    engine = engine_of(found, chain)
    place = {item: number for number, item in enumerate(engine.ids)}
    turns, chosen = known(found, "train", place)
    turns, chosen = turns[:LEARNT_FROM], chosen[:LEARNT_FROM]
    if not turns:
        raise UserError(
            "no training conversation has turns and a chosen item of the catalogue: there is "
            "nothing to learn from"
        )

    def worth(queries: Any, of: np.ndarray) -> np.ndarray:
        wanted = wanted_of([chosen[one] for one in of.tolist()])
        measured = retrieval.per_query(searched(engine, queries, DEPTH), wanted, depths=(DEPTH,))
        return measured[METRIC]

    learnt = selection.learned(turns, worth)
    turns, chosen = known(found, "validation", place)
    wanted = wanted_of(chosen)
    values = {}
    for how in ways():
        queries = [conversing.asked(one, how, learnt) for one in turns]
        lists = searched(engine, queries, DEPTH)
        values[how] = float(np.mean(retrieval.per_query(lists, wanted, depths=(DEPTH,))[METRIC]))
    asks = max(values, key=lambda how: values[how])
    job.say(
        f"a search is asked with {asks}: validation {METRIC} "
        + ", ".join(f"{how} {value:.4f}" for how, value in values.items())
    )
    told = {"asks": asks, "selection": conversing.told_of(learnt), "values": values}
    processes.alone(write_json, job.folder / SELECTION, told)


def ways() -> tuple[str, ...]:
    """The ways to ask, by their names."""
    return (LAST, *(f"{LAST} {count}" for count in range(2, LONGEST + 1)), ALL, RARE, TURNS, WORDS)


def engine_of(found: Chats, chain: str) -> Chain:
    """What searches: the chain of a folder, or words over the catalogue of the chats.

    Raises UserError where there is no catalogue, or the chain's is another one.
    """
    titles = dict(
        zip(found.items["item_id"].to_pylist(), found.items["title"].to_pylist(), strict=True)
    )
    if chain:
        engine = Chain.load(remote.local(chain))
        theirs = dict(zip(engine.ids, engine.items.titles, strict=True))
        if titles and theirs != titles:
            raise UserError(
                f"{chain} searches another catalogue than that of the chats: make a chain of this "
                "one, or leave the catalogue out"
            )
        return engine
    if not titles:
        raise UserError(
            "nothing says what can be found: give the catalogue with --config.data.items.path, or "
            "a chain with --config.chain"
        )
    texts = [text or "" for text in found.items["text"].to_pylist()]
    return Chain.of_words(list(titles), list(titles.values()), texts)


def known(
    found: Chats, split: str, place: Mapping[str, int]
) -> tuple[list[list[str]], list[list[int]]]:
    """A split's chats in which an item of the catalogue was chosen: turns, and these items."""
    turns, chosen = [], []
    for one, items in zip(*found.of(split), strict=True):
        if numbers := [place[item] for item in items if item in place]:
            turns.append(one)
            chosen.append(numbers)
    return turns, chosen


def wanted_of(chosen: list[list[int]]) -> Wanted:
    """The chosen items of each chat, as what its search wants."""
    rows = np.repeat(np.arange(len(chosen)), [len(one) for one in chosen])
    return Wanted(rows, np.array([item for one in chosen for item in one], np.int64))


def searched(engine: Chain, queries: list[str], depth: int) -> np.ndarray:
    """The first items for each query `[Q, depth]`; NOTHING where fewer are found."""
    found = np.full((len(queries), depth), NOTHING)
    for start in range(0, len(queries), AT_ONCE):
        part = engine.search(queries[start : start + AT_ONCE], count=depth).items
        found[start : start + len(part), : part.shape[1]] = part
    return found
