"""Evaluate recommenders: export the best, measure all on the test users, and leave the report."""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa

from sie_jax import processes
from sie_jax.data.histories.histories import TEST, VALIDATION, Cases, Histories, cases
from sie_jax.evaluation import recommending as measuring
from sie_jax.evaluation import retrieval
from sie_jax.evaluation.recommending import METRIC
from sie_jax.evaluation.retrieval import NOTHING, Wanted
from sie_jax.files import read_json, whole, whole_folder, write_json
from sie_jax.report import page, sections
from sie_jax.serving import recommending
from sie_jax.serving.recommending import HistoryRecommender
from sie_jax.stages.histories import CLEANING
from sie_jax.stages.history_blend import BLEND, Blended
from sie_jax.stages.history_runs import HistoryRuns, HistoryStart
from sie_jax.stages.history_train import COLD_DEPTH, Recommended, cold_cases
from sie_jax.stages.recommenders import Fitted, listed
from sie_jax.stages.reporting import facts
from sie_jax.stages.running import by_run
from sie_jax.tables.spool import write_parquet
from sie_jax.training import logs
from sie_jax.workdir import Job, Made, stage
from sie_jax.workdir.ledger import total

METRICS, REPORT, LISTS, MODEL = "metrics.json", "report.html", "recommendations.parquet", "model"
BEYOND_DEPTH = 10


@dataclasses.dataclass(frozen=True)
class HistoryResults:
    """What the stages before left."""

    fitted: Made[Fitted]
    trained: tuple[Made[Recommended], ...]
    blended: Made[Blended]
    explained: Made[list[dict[str, Any]]] | None = None

    def runs(self) -> dict[str, list[Made[Recommended]]]:
        """The training runs by name, those of all seeds in their order."""
        return by_run(self.trained)


def read(made: Made[dict[str, Any]]) -> dict[str, Any]:
    """The content of metrics.json."""
    values: dict[str, Any] = read_json(made.folder / METRICS)
    return values


@stage(leaves=(METRICS, REPORT, LISTS, MODEL), read=read, trains=False)
def evaluate(
    job: Job, results: HistoryResults, start: HistoryStart, *, depths: tuple[int, ...]
) -> None:
    """Leaves metrics.json, report.html, recommendations.parquet and model/.

    model/ is the recommender with the highest nDCG@10 on the validation users, of the trained runs'
    first seeds and the baselines. recommendations.parquet has its list for each test user.

    depths: at which metrics are measured; 10 is among them.
    """
    runs = HistoryRuns(job, start)
    own, fitted = runs.histories, results.fitted.value
    asked = cases(own, TEST)
    wanted, deepest = Wanted(asked.case, asked.item), min(max(depths), len(own.items))
    depths = tuple(depth for depth in depths if depth <= deepest)
    lists: dict[str, list[np.ndarray]] = {
        run: [made.value.test for made in several] for run, several in results.runs().items()
    }
    lists[BLEND] = [results.blended.value.test]
    for name, one in fitted.recommenders.items():
        lists[name] = [listed(one, own, asked, depth=deepest, repeats=start.repeats)]
    measured = measuring.by_user(lists, wanted, depths)
    validation = _validation(results, own)
    exported = max(validation, key=lambda run: validation[run])
    baselines = tuple(fitted.recommenders)
    counts = read_json(job.folder / CLEANING)
    metrics: dict[str, Any] = {
        "rows": {
            "read": counts["read"],
            "kept": counts["kept"],
            "rejected": counts["read"] - counts["kept"],
        },
        "users": {
            "all": len(own.users),
            "items": len(own.items),
            "events": len(own.item),
            "test": len(asked),
            "validation": len(cases(own, VALIDATION)),
        },
        **measuring.summarised(measured),
        "groups": _groups(runs, results, asked, measured, depths),
        "beyond": _beyond(lists, own, runs),
        "verdict": measuring.verdict(
            measured,
            exported=exported,
            baselines=baselines,
            validation=validation,
            no_weighting=(BLEND,),
        ),
        "cost": _costs(results),
        "device": f"{job.mesh.size} × {jax.devices()[0].device_kind}",
    }

    def leave() -> None:
        job.workdir.draw_log()
        _export(job, results, runs, exported)
        chosen = lists[exported][0]
        _write_lists(job, own, asked.user, chosen)
        _write_page(job, metrics, results, depths, baselines)
        write_json(job.folder / METRICS, metrics)

    processes.alone(leave)


def _validation(results: HistoryResults, own: Histories) -> dict[str, float]:
    """nDCG@10 of each recommender on the validation users, of trained ones that of seed 0."""
    asked = cases(own, VALIDATION)
    wanted = Wanted(asked.case, asked.item)
    found = {name: max(values.values()) for name, values in results.fitted.value.validation.items()}
    firsts = {run: several[0].value.validation for run, several in results.runs().items()}
    firsts[BLEND] = results.blended.value.validation
    for run, first in firsts.items():
        found[run] = float(retrieval.per_query(first, wanted, depths=(10,))[METRIC].mean())
    return found


def _groups(
    runs: HistoryRuns,
    results: HistoryResults,
    asked: Cases,
    measured: Mapping[str, Mapping[str, np.ndarray]],
    depths: Sequence[int],
) -> dict[str, Any]:
    """The metrics of users who were not there in training, and of items that were not."""
    main = [METRIC, f"recall@{max(depths)}"]
    found: dict[str, Any] = {}
    if not asked.known.all() and asked.known.any():
        for name, rows, about in (
            ("Known users", asked.known, "Users with training events."),
            (
                "Unseen users",
                ~asked.known,
                "Users who came after training: they are known by their first basket alone.",
            ),
        ):
            told = measuring.summarised(measured, rows)
            found[name] = {
                "about": about,
                "users": int(rows.sum()),
                "test": {
                    run: {metric: values[metric] for metric in main}
                    for run, values in told["test"].items()
                },
                "shown": main,
            }
    cold = cold_cases(runs)
    if results.trained[0].value.cold.size and (~runs.met[1:]).sum() >= 2 * COLD_DEPTH:
        found |= _cold(runs, results, cold)
    return found


def _cold(runs: HistoryRuns, results: HistoryResults, cold: Cases) -> dict[str, Any]:
    """Recall of what nobody had met in training, ranked among such items alone.

    An item that the user has bought since is left out: to buy it again needs no text.
    """
    own, among = runs.histories, ~runs.met
    new = np.array(
        [
            item not in own.item[cold.start[case] : cold.stop[case]]
            for case, item in zip(cold.case, cold.item, strict=True)
        ],
        bool,
    )
    wanted = Wanted(cold.case[new], cold.item[new])
    asked = np.unique(wanted.query)
    if not len(asked):
        return {}
    number = int(among[1:].sum())
    depth = min(COLD_DEPTH, number)
    lists: dict[str, list[np.ndarray]] = {
        run: [made.value.cold for made in several] for run, several in results.runs().items()
    }
    for name, one in results.fitted.value.recommenders.items():
        made = listed(one, own, cold, depth=depth, repeats=runs.start.repeats, among=among)
        lists[name] = [made]
    random = np.random.default_rng(0)
    places = np.flatnonzero(among)[1:]
    lists["random"] = [np.stack([random.permutation(places)[:depth] for _ in range(len(cold))])]
    metric = f"recall@{depth}"
    measured = measuring.by_user(lists, wanted, (depth,))
    told = measuring.summarised(measured, asked)
    return {
        "Cold items": {
            "about": f"What nobody had met in training, and the user not since, ranked among these "
            f"{number:,} items alone.",
            "users": len(asked),
            "test": {run: {metric: values[metric]} for run, values in told["test"].items()},
            "shown": [metric],
        }
    }


def _beyond(
    lists: Mapping[str, Sequence[np.ndarray]], own: Histories, runs: HistoryRuns
) -> dict[str, dict[str, float]]:
    """What each recommender's first lists do to the catalogue."""
    popularity, vectors = own.popularity[1:], runs.start.vectors
    texts = None if vectors is None else vectors.value[1:]
    found = {}
    for run, several in lists.items():
        top = several[0][:, :BEYOND_DEPTH]
        top = np.where(top == NOTHING, NOTHING, top - 1)
        found[run] = retrieval.of_lists(
            top, items=len(own.items), popularity=popularity, vectors=texts
        )
    return found


def _costs(results: HistoryResults) -> dict[str, Any]:
    """What one model of each run takes: the mean over seeds; the baselines together."""
    costs = {}
    for run, several in results.runs().items():
        each = [total(made.cost) for made in several]
        seconds = sum(one.seconds for one in each) / len(each)
        costs[run] = each[0]._replace(seconds=seconds)._asdict()
    return costs


def _export(job: Job, results: HistoryResults, runs: HistoryRuns, exported: str) -> None:
    own = runs.histories
    with whole_folder(job.folder / MODEL) as temporary:
        trained = results.runs().get(exported)
        if exported == BLEND:
            _export_blend(temporary, results, runs)
            return
        if trained is not None:
            shutil.copytree(trained[0].value.model, temporary, dirs_exist_ok=True)
            return
        recommending.save(
            temporary,
            items=own.items,
            texts=own.texts,
            met=runs.met,
            repeats=runs.start.repeats,
            events=own.event_names,
            other=results.fitted.value.recommenders[exported],
            users=runs.known_users,
        )


def _export_blend(folder: Path, results: HistoryResults, runs: HistoryRuns) -> None:
    first = HistoryRecommender.load(results.trained[0].value.model)
    chosen = results.blended.value
    recommending.save(
        folder,
        items=first.items,
        texts=first.texts,
        met=first.met,
        repeats=first.repeats,
        events=first.events,
        model=first.model,
        vectors=first.vectors,
        other=results.fitted.value.recommenders[chosen.partner],
        share=chosen.share,
        users=runs.known_users,
    )


def _write_lists(job: Job, own: Histories, users: np.ndarray, lists: np.ndarray) -> None:
    items = np.array(own.items, object)
    table = pa.table(
        {
            "user_id": [own.users[one] for one in users.tolist()],
            "items": [items[row[row > 0] - 1].tolist() for row in lists],
        }
    )
    write_parquet(job.folder / LISTS, table)


def _write_page(
    job: Job,
    metrics: Mapping[str, Any],
    results: HistoryResults,
    depths: Sequence[int],
    baselines: Sequence[str],
) -> None:
    main = [f"ndcg@{depth}" for depth in depths] + [f"recall@{depth}" for depth in depths]
    explained = [] if results.explained is None else results.explained.value
    first = next(iter(results.runs()))
    log, config = logs.read(job.folder / "metrics.jsonl"), job.workdir.config
    parts = [
        sections.verdict.part(metrics),
        sections.recommendations.part(metrics, main, baselines=baselines),
        sections.users.part(first, explained),
        sections.training.part(metrics, log),
        sections.cost.part(metrics),
        sections.settings.part(config, job.workdir.defaults),
    ]
    with whole(job.folder / REPORT) as temporary:
        page.write(temporary, title=f"sie_jax: {config['name']}", parts=parts, facts=facts(job))
