"""Converse: what an assistant finds for the test chats, and how well it tells intents."""

from typing import Any

import jax
import numpy as np

from sie_jax import processes, remote
from sie_jax.data import sentences
from sie_jax.data.chats import Chats
from sie_jax.data.utterances import IntentsConfig
from sie_jax.evaluation import claims, retrieval
from sie_jax.files import read_json, whole, whole_folder, write_json
from sie_jax.models.intents import IntentModel
from sie_jax.report import page, sections
from sie_jax.serving import conversing
from sie_jax.serving.conversing import ALL, RARE, Assistant
from sie_jax.stages.chats import Asking, engine_of, known, searched, wanted_of, ways
from sie_jax.stages.intents import FOLDER
from sie_jax.stages.reporting import facts
from sie_jax.workdir import Job, Made, stage

METRICS, REPORT, MODEL = "metrics.json", "report.html", "model"
DEPTH, METRIC = 10, "ndcg@10"
SHOWN, EFFECTS = 6, 12


def read(made: Made[dict[str, Any]]) -> dict[str, Any]:
    """The content of metrics.json."""
    values: dict[str, Any] = read_json(made.folder / METRICS)
    return values


@stage(leaves=(METRICS, REPORT, MODEL), read=read, trains=False)
def converse(
    job: Job,
    conversations: Made[Chats] | None,
    asking: Made[Asking] | None,
    intents: Made[dict[str, Any]] | None,
    *,
    chain: str,
    config: IntentsConfig,
) -> None:
    """Leaves metrics.json, report.html and model/, the assistant (`serving.conversing`).

    chain, config: as of the stages `ask` and `intents`.
    """
    metrics: dict[str, Any] = {"device": f"{job.mesh.size} × {jax.devices()[0].device_kind}"}
    assistant, examples = Assistant(), []
    notes: list[str] = []
    if conversations is not None and asking is not None:
        engine, chosen = engine_of(conversations.value, chain), asking.value
        place = {item: number for number, item in enumerate(engine.ids)}
        turns, wants = known(conversations.value, "test", place)
        wanted, measured = wanted_of(wants), {}
        for how in ways():
            queries = [conversing.asked(one, how, chosen.selection) for one in turns]
            lists = searched(engine, queries, DEPTH)
            found = retrieval.per_query(lists, wanted, depths=(DEPTH,))
            measured[how] = {
                name: by_need(found[f"{name}@{DEPTH}"], wants) for name in ("ndcg", "recall", "mrr")
            }
        metrics |= _products(measured, chosen, len(turns), len(engine.ids))
        notes += metrics["verdict"]["notes"]
        assistant = Assistant(engine, chosen.asks, chosen.selection)
        shown = zip(turns[:SHOWN], wants[:SHOWN], strict=True)
        examples = [_example(assistant, one, set(items)) for one, items in shown]
    if intents is not None:
        told = intents.value
        metrics["intents"] = told
        encoder = sentences.load(remote.local(config.pretrained)) if config.pretrained else None
        model = IntentModel.load(intents.folder / FOLDER)
        if model.of_vector is None:
            encoder = None
        threshold = told["handed_over"]["threshold"]
        assistant = Assistant(
            assistant.chain, assistant.asks, assistant.selection, model, encoder, threshold
        )
        notes.append(_of_intents(told))
    metrics.setdefault("verdict", {"beats_baseline": None})["notes"] = notes

    def leave() -> None:
        with whole_folder(job.folder / MODEL) as temporary:
            assistant.save(temporary)
        parts = [
            sections.verdict.part(metrics),
            sections.chats.part(metrics, examples) if conversations is not None else None,
            sections.intents.part(metrics["intents"]) if intents is not None else None,
            sections.settings.part(job.workdir.config, job.workdir.defaults),
        ]
        with whole(job.folder / REPORT) as temporary:
            title = f"sie_jax: {job.workdir.config['name']}"
            page.write(temporary, title=title, parts=parts, facts=facts(job))
        write_json(job.folder / METRICS, metrics)

    processes.alone(leave)


def by_need(values: np.ndarray, chosen: list[list[int]]) -> np.ndarray:
    """The mean over the chats that end in the same items, of each such set of items.

    Chats about one need succeed or fail together: intervals over chats would take them for as many
    needs, and be too narrow.
    """
    number = {items: place for place, items in enumerate(dict.fromkeys(map(frozenset, chosen)))}
    need = np.array([number[frozenset(items)] for items in chosen])
    means: np.ndarray = np.bincount(need, values) / np.bincount(need)
    return means


def _products(
    measured: dict[str, dict[str, np.ndarray]], chosen: Asking, chats: int, items: int
) -> dict[str, Any]:
    """What is found by each way to ask, each less all turns."""
    test = {
        how: {f"{name}@{DEPTH}": claims.fixed(values) for name, values in one.items()}
        for how, one in measured.items()
    }
    difference = {
        how: {
            f"{name}@{DEPTH}": claims.fixed(values - measured[ALL][name])
            for name, values in one.items()
        }
        for how, one in measured.items()
        if how != ALL
    }
    plain = [how for how in measured if how.startswith("last") or how in (ALL, RARE)]
    means = {how: float(measured[how]["ndcg"].mean()) for how in measured}
    best = max(plain, key=lambda how: means[how])
    against = claims.fixed(measured[chosen.asks]["ndcg"] - measured[best]["ndcg"])
    low, high = against["low"], against["high"]
    beats: bool | None = None
    if chosen.asks in plain:
        beats = False
    elif low is not None and high is not None:
        beats = True if low > 0 else False if high < 0 else None
    bounds = "" if low is None else f" [{low:+.4f}, {high:+.4f}]"
    needs = len(measured[ALL]["ndcg"])
    claim = {
        True: f"Asked with {chosen.asks}, the search finds more than with {best}, the best of the "
        "simple rules",
        False: f"Asked with {chosen.asks}, the search finds no more than with {best}",
        None: f"It is not resolved whether the search finds more with {chosen.asks} than with "
        f"{best}",
    }[beats]
    return {
        "chats": {"test": chats, "needs": needs, "items": items},
        "test": test,
        "difference": difference,
        "asked_with": chosen.asks,
        "validation": chosen.values,
        "effects": {
            kind: _strongest(one)
            for kind, one in (("turns", chosen.selection.turns), ("words", chosen.selection.words))
        },
        "verdict": {
            "ranker": chosen.asks,
            "best_baseline": best,
            METRIC: against,
            "beats_baseline": beats,
            "notes": [
                f"{claim}: {METRIC} is {means[chosen.asks]:.4f} and {means[best]:.4f} on "
                f"{chats:,} test chats about {needs:,} needs, a difference of "
                f"{against['value']:+.4f}{bounds}."
            ],
        },
    }


def _strongest(effects: Any) -> list[dict[str, Any]]:
    """The features that speak most for leaving a piece out, and those that speak most against."""
    order = np.argsort(effects.values)
    shown = [*order[::-1][:EFFECTS], *order[:EFFECTS]]
    return [
        {"feature": effects.names[at], "effect": effects.values[at], "chats": effects.chats[at]}
        for at in dict.fromkeys(shown)
    ]


def _example(assistant: Assistant, turns: list[str], wanted: set[int]) -> dict[str, Any]:
    """A chat, the words that are kept of it, and what is found with them."""
    assert assistant.chain is not None
    query = assistant.query(turns)
    left = query.split()
    marked = []
    for turn in turns:
        words = []
        for word in turn.split():
            kept = bool(left) and left[0] == word
            left = left[1:] if kept else left
            words.append({"word": word, "kept": kept})
        marked.append(words)
    hits = assistant.chain.hits(query, count=3) if query.strip() else []
    place = {item: number for number, item in enumerate(assistant.chain.ids)}
    return {
        "turns": marked,
        "hits": [{"title": hit.title, "wanted": place[hit.item_id] in wanted} for hit in hits],
    }


def _of_intents(told: dict[str, Any]) -> str:
    """The sentence about intents."""
    chosen = told["chosen"]
    ours, words = (told["test"][name]["accuracy"]["value"] for name in (chosen, "words"))
    over = told["handed_over"]
    return (
        f"Intents: accuracy {ours:.4f} by {chosen}, {words:.4f} by words alone; with confidence "
        f"{over['threshold']:.2f} or more {over['answered']:.0%} are answered, "
        f"{over['accuracy_of_answered']['value'] or 0:.4f} of them right, and the rest is handed "
        "to a person."
    )
