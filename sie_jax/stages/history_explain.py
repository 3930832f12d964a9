"""Explain recommendations: which events of a history, and which training histories, made them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sie_jax import per_example, processes
from sie_jax.data.histories.histories import TEST, cases
from sie_jax.devices import mesh as meshes
from sie_jax.files import read_json, write_json
from sie_jax.serving.recommending import HistoryRecommender
from sie_jax.stages.history_runs import HistoryRuns, HistoryStart
from sie_jax.stages.history_train import Recommended
from sie_jax.tasks.sequence import NextItem
from sie_jax.workdir import Job, Made, stage

FILE = "explanations.json"
SHOWN, PUSHED = 5, 3
ASKED = 1024
"""Training histories that are asked: those that were to give the recommended item, then others."""


def read(made: Made[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The users that are explained."""
    found: list[dict[str, Any]] = read_json(made.folder / FILE)
    return found


@stage(leaves=(FILE,), read=read, trains=False)
def explain(
    job: Job, start: HistoryStart, trained: Made[Recommended], *, users: int, seed: int
) -> None:
    """Leaves what the first run recommends to some test users, and why.

    *falls*: by how much the logit of the first recommendation falls where an event is left out of
    the history, types and times of events unread. *push*: the inner product of a training history's
    exact loss gradient, turned to descent, and the gradient of log p(recommendation | history):
    what one step along the training history alone adds to it (TracIn at the last checkpoint: Pruthi
    et al. 2020).
    """
    runs = HistoryRuns(job, start)
    own = runs.histories
    model = HistoryRecommender.load(trained.value.model).model
    assert model is not None
    task, met = runs.task(), jnp.asarray(runs.met)
    params = meshes.place(job.mesh, nnx.state(model, nnx.Param))
    texts = [text or item for text, item in zip(own.texts, own.items, strict=True)]
    asked = cases(own, TEST)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(asked))[: min(users, len(asked))])
    found = []
    for case in chosen.tolist():
        history = own.item[asked.start[case] : asked.stop[case]][-start.model.max_length :]
        lists = trained.value.test[case]
        wanted = set(asked.item[asked.case == case].tolist())
        first = int(lists[0])
        falls = _falls(task, params, met, history, first, start.model.max_length)
        found.append(
            {
                "user_id": own.users[asked.user[case]],
                "history": [
                    {"text": texts[one - 1], "falls": fall}
                    for one, fall in zip(history.tolist(), falls, strict=True)
                ],
                "recommended": [
                    {"text": texts[one - 1], "wanted": one in wanted}
                    for one in lists[:SHOWN].tolist()
                    if one > 0
                ],
                "pushed": _pushed(runs, task, params, case, first, texts),
            }
        )
    processes.alone(write_json, job.folder / FILE, found)


def _falls(
    task: NextItem, params: Any, met: jax.Array, history: np.ndarray, item: int, length: int
) -> list[float | None]:
    """By how much the item's logit falls without each event; None where nothing would be left.

    history: item numbers. length: to which all are padded, so that one program serves all users.
    """
    if len(history) < 2:
        return [None] * len(history)
    left_out = [np.delete(history, place) for place in range(len(history))]
    rows = np.zeros((length + 1, length), np.int32)
    for row, one in enumerate([history, *left_out]):
        rows[row, : len(one)] = one
    scores = np.asarray(_logits(task, params, met, jnp.asarray(rows), item))
    return [float(scores[0] - one) for one in scores[1 : 1 + len(history)]]


@functools.partial(jax.jit, static_argnums=0)
def _logits(task: NextItem, params: Any, met: jax.Array, items: jax.Array, item: int) -> jax.Array:
    """The logit of one item after each of several histories, told by their items alone."""
    nothing = jnp.zeros_like(items)
    batch = {"items": items, "events": nothing, "gaps": nothing}
    return task.logits(params, batch, met)[:, item]


@functools.partial(jax.jit, static_argnums=0)
def _direction(task: NextItem, params: Any, batch: dict[str, jax.Array], item: int) -> Any:
    """The gradient of log p(item | history) of the first row."""

    def chance(params: Any) -> jax.Array:
        logits = task.logits(params, batch)[0]
        return logits[item] - jax.nn.logsumexp(logits)

    return jax.grad(chance)(params)


@functools.partial(jax.jit, static_argnums=0)
def _dots(task: NextItem, params: Any, batch: dict[str, jax.Array], direction: Any) -> jax.Array:
    """−⟨∇ℓ_i, direction⟩ of each row."""
    _, grads = per_example.value_and_grad(task.loss(), has_aux=True)(params, batch)
    return -grads.dot(direction)


def _pushed(
    runs: HistoryRuns, task: NextItem, params: Any, case: int, item: int, texts: list[str]
) -> list[dict[str, Any]]:
    """The training histories whose gradients raise the item's chance most."""
    own, windows = runs.histories, runs.planner.windows
    one = cases(own, TEST).rows(np.array([case]))
    batch = {name: jnp.asarray(values) for name, values in runs.planner.asked(one)[0].items()}
    direction = _direction(task, params, batch, item)
    gives = np.array(
        [
            item in own.item[runs.planner.target[start:stop]]
            for start, stop in zip(windows.start, windows.stop, strict=True)
        ]
    )
    order = np.argsort(~gives, kind="stable")[:ASKED]
    pushes = np.full(len(windows.start), -np.inf)
    for read in runs.planner.of_windows(order):
        real = read["row"] >= 0
        pushes[read["row"][real]] = np.asarray(_dots(task, params, read, direction))[real]
    best = [place for place in np.argsort(-pushes)[:PUSHED] if pushes[place] > -np.inf]
    return [
        {
            "user_id": own.users[own.user[windows.start[place]]],
            "push": float(pushes[place]),
            "texts": [
                texts[one - 1] for one in own.item[windows.start[place] : windows.stop[place]][-8:]
            ],
        }
        for place in best
    ]
