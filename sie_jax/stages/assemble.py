"""Assemble: the chain's rankers and depths, fitted and chosen on the validation queries.

Towers, word translation and cross-encoder have not seen these queries. The rankers of what was
found are fitted on them, and each is judged on queries that it was fitted without.
"""

import dataclasses
import time
from typing import Any, NamedTuple

import numpy as np

from sie_jax import processes
from sie_jax.data import folds as dealing
from sie_jax.data import sentences
from sie_jax.data.preparing import Prepared
from sie_jax.data.translation import Translation
from sie_jax.errors import UserError
from sie_jax.evaluation import retrieval
from sie_jax.evaluation.retrieval import Wanted
from sie_jax.files import read_json, whole_folder, write_json
from sie_jax.retrieval import candidates as describing
from sie_jax.retrieval import diversity
from sie_jax.retrieval.candidates import Candidates, Items, ListRanker
from sie_jax.retrieval.chain_section import StepsConfig
from sie_jax.retrieval.index import IndexConfig, VectorIndex
from sie_jax.retrieval.words import WordIndex
from sie_jax.serving import finding, scoring
from sie_jax.serving.finding import Chain, Found, Plan, Tower
from sie_jax.stages.asked import Asked, asked_of, catalogue_of, texts_of
from sie_jax.stages.search import Encoded, digest_of
from sie_jax.stages.train import Trained
from sie_jax.workdir import Job, Made, stage

MODEL, FILE = "model", "assembly.json"
METRIC, DEPTH = "ndcg@10", 10
UNJUDGED = -1
FOLDS = 5


class Assembled(NamedTuple):
    """Where the chain lies, and what was tried: nDCG@10 on the validation queries."""

    folder: str
    trials: dict[str, Any]


def read(made: Made[Assembled]) -> Assembled:
    """Where the chain lies, and what was tried."""
    return Assembled(str(made.folder / MODEL), read_json(made.folder / FILE))


@stage(leaves=(MODEL, FILE), read=read, trains=False)
def assemble(
    job: Job,
    prepared: Made[Prepared],
    encoded: dict[str, Encoded],
    words: Made[Translation],
    cross: Made[Trained] | None,
    *,
    steps: StepsConfig,
    index: IndexConfig,
    checkpoint: str,
    item_text: bool,
    seed: int,
) -> None:
    """Leaves model/, the chain (`serving.finding`), and assembly.json, what was tried for it."""
    pairs = prepared.value
    ids, texts = texts_of(pairs, item_text=item_text)
    if max(steps.found) > len(ids):
        raise UserError(
            f"chain.found has {max(steps.found)}, and the catalogue has {len(ids):,} items: give "
            "at most that"
        )
    asked = asked_of(pairs, "validation", ids)
    if len(asked.queries) < FOLDS:
        raise UserError(
            f"{len(asked.queries)} validation queries are too few to fit a ranker of what is found "
            f"({FOLDS} are needed): raise data.validation"
        )
    towers = _towers(encoded, checkpoint, index, digest_of(texts))
    table = catalogue_of(pairs)
    chain = Chain(
        ids=tuple(ids),
        items=Items.of(table["title"].to_pylist(), table["text"].to_pylist()),
        item_text=item_text,
        words=WordIndex(texts),
        towers=towers,
        translation=words.value,
        plan=Plan(found=max(steps.found)),
        cross=None if cross is None else scoring.load(cross.value.model),
        cross_folder="" if cross is None else cross.value.model,
    )
    fit = _Fit(chain, asked, asked.gained(pairs.scale.gains), pairs.scale.gains, steps, seed)
    chain, trials = fit.chosen()
    for line in _lines(chain, trials):
        job.say(line)

    def leave() -> None:
        with whole_folder(job.folder / MODEL) as temporary:
            chain.save(temporary)
        write_json(job.folder / FILE, trials)

    processes.alone(leave)


def _towers(
    encoded: dict[str, Encoded], checkpoint: str, index: IndexConfig, catalogue: str
) -> dict[str, Tower]:
    """The encoders, the trained one first."""
    order = sorted(encoded, key=lambda name: encoded[name].trained is None)
    found = {}
    for name in order:
        one = encoded[name]
        model = checkpoint if one.trained is None else one.trained.value.model
        made_of = {"model": one.vectors.id, "catalogue": catalogue}
        built = VectorIndex.build(one.vectors.value, index, made_of)
        found[name] = Tower(sentences.load(model), one.vectors.value, built)
    return found


class _Now(NamedTuple):
    """Lists in the order of their scores, and the nDCG@10 of each, NaN where nothing is wanted."""

    lists: np.ndarray
    scores: np.ndarray
    rows: np.ndarray

    @property
    def value(self) -> float:
        """The mean nDCG@10."""
        return float(np.nanmean(self.rows))


class _Tried(NamedTuple):
    """What was described of some lists, and the best kind of ranker there."""

    lists: np.ndarray
    described: Candidates
    kind: str
    values: dict[str, float]
    scores: np.ndarray
    rows: np.ndarray

    def now(self) -> _Now:
        """The lists in the order of the scores."""
        spread = finding.spread(self.lists, self.described, self.scores)
        return _Now(*finding.by_score(self.lists, spread), self.rows)


@dataclasses.dataclass(frozen=True)
class _Fit:
    """The fitting of one chain on the queries of `asked`."""

    chain: Chain
    asked: Asked
    wanted: Wanted
    gains: tuple[float, ...]
    steps: StepsConfig
    seed: int

    def chosen(self) -> tuple[Chain, dict[str, Any]]:
        """The chain, and the validation nDCG@10 of everything that was tried."""
        trials: dict[str, Any] = {"found": {}, "kept": {}, "diversity": {}}
        started = time.perf_counter()
        found = self.chain.find(self.asked.queries, max(self.steps.found))
        seconds = time.perf_counter() - started
        chain, now = self._ranked(found, seconds, trials["found"])
        if chain.cross is not None and self.steps.kept:
            chain, now = self._reranked(chain, found, now, trials["kept"])
        if chain.reranker is None:
            chain = dataclasses.replace(chain, cross=None)
        share = self._diversity(chain, now, trials["diversity"])
        plan = dataclasses.replace(chain.plan, diversity=share)
        return dataclasses.replace(chain, plan=plan), trials

    def _ranked(self, found: Found, seconds: float, trials: dict[str, Any]) -> tuple[Chain, "_Now"]:
        """The chain with a ranker of what is found, and the lists in its order."""
        tried: dict[int, _Tried] = {}
        queries = self.asked.queries
        for depth in self.steps.found:
            started = time.perf_counter()
            part = found.first(depth)
            described = self.chain.describe(queries, part)
            took = seconds + time.perf_counter() - started
            tried[depth] = self._tried(part.lists, described)
            trials[str(depth)] = {
                **tried[depth].values,
                "milliseconds": 1000 * took / len(queries),
            }
        depth = self._depth(trials, {one: tried[one].kind for one in tried})
        best = tried[depth]
        ranker = self._fitted(best.kind, best.described)
        return dataclasses.replace(self.chain, ranker=ranker, plan=Plan(found=depth)), best.now()

    def _reranked(
        self, chain: Chain, found: Found, now: "_Now", trials: dict[str, Any]
    ) -> tuple[Chain, "_Now"]:
        """The same with the cross-encoder, where that is clearly better.

        By more than the tolerance, and by more than one standard error over the queries: it takes
        most of the time, and so does not come in by chance.
        """
        queries, most = self.asked.queries, max(self.steps.kept)
        read = chain.read(queries, now.lists[:, :most])
        tried: dict[int, _Tried] = {}
        for kept in self.steps.kept:
            part = found.of(now.lists[:, :kept])
            described = chain.describe(queries, part, {finding.OF_CROSS: read[:, :kept]})
            tried[kept] = self._tried(part.lists, described)
            trials[str(kept)] = tried[kept].values
        kept = max(tried, key=lambda one: tried[one].values[tried[one].kind])
        gain = tried[kept].rows - now.rows
        gain = gain[~np.isnan(gain)]
        error = float(gain.std(ddof=1) / len(gain) ** 0.5)
        if gain.mean() <= max(self.steps.tolerance, error):
            return chain, now
        reranker = self._fitted(tried[kept].kind, tried[kept].described)
        plan = dataclasses.replace(chain.plan, kept=kept)
        return dataclasses.replace(chain, reranker=reranker, plan=plan), tried[kept].now()

    def _diversity(self, chain: Chain, now: "_Now", trials: dict[str, Any]) -> float:
        """The largest share that loses no more than its tolerance."""
        vectors, able = next(iter(chain.towers.values())).vectors, [0.0]
        for share in self.steps.diversity:
            diverse, _ = chain.diverse(now.lists, now.scores, share=share, count=DEPTH)
            value = float(np.nanmean(self._rows(diverse)))
            trials[str(share)] = {METRIC: value, "within": diversity.within(diverse, vectors)}
            if value >= now.value - self.steps.diversity_tolerance:
                able.append(share)
        return max(able)

    def _tried(self, lists: np.ndarray, described: Candidates) -> "_Tried":
        """The best of the rankers of each kind, each fitted on other queries than it orders."""
        scores = describing.out_of_fold(described, self._gains(described), self._folds(described))
        rows = {
            kind: self._rows(describing.ordered(lists, described, of_kind))
            for kind, of_kind in scores.items()
        }
        values = {kind: float(np.nanmean(one)) for kind, one in rows.items()}
        kind = max(values, key=lambda one: values[one])
        return _Tried(lists, described, kind, values, scores[kind], rows[kind])

    def _fitted(self, kind: str, described: Candidates) -> ListRanker:
        return describing.fitted(kind, described, self._gains(described), self._folds(described))

    def _gains(self, described: Candidates) -> np.ndarray:
        """The gain of each place; what nobody judged has none."""
        width = int(described.place.max()) + 1
        lists = np.full((len(self.asked.queries), width), -1)
        lists[described.row, described.place] = described.item
        labels = self.asked.labels(lists, other=UNJUDGED)[described.row, described.place]
        return np.where(labels >= 0, np.array(self.gains)[np.maximum(labels, 0)], 0.0)

    def _folds(self, described: Candidates) -> np.ndarray:
        return dealing.assign(self.asked.queries, folds=FOLDS, seed=self.seed)[described.row]

    def _rows(self, lists: np.ndarray) -> np.ndarray:
        return retrieval.per_query(lists, self.wanted, depths=(DEPTH,))[METRIC]

    def _depth(self, trials: dict[str, dict[str, float]], kinds: dict[int, str]) -> int:
        """The shallowest within the tolerance of the best, of those within the budget of time."""
        budget = self.steps.milliseconds
        able = [d for d in kinds if not budget or trials[str(d)]["milliseconds"] <= budget]
        if not able:
            raise UserError(
                f"chain.milliseconds is {budget:g}, and no depth of chain.found takes less than "
                f"{min(one['milliseconds'] for one in trials.values()):.1f}: raise it, or give "
                "a smaller depth"
            )
        values = {depth: trials[str(depth)][kinds[depth]] for depth in able}
        best = max(values.values())
        return min(depth for depth in able if values[depth] >= best - self.steps.tolerance)


def _lines(chain: Chain, trials: dict[str, Any]) -> list[str]:
    """For the console: what was chosen."""
    plan, kind = chain.plan, "" if chain.ranker is None else chain.ranker.kind
    lines = [
        f"{plan.found} items are found and ranked by {kind}: validation {METRIC} "
        f"{trials['found'][str(plan.found)][kind]:.4f}"
    ]
    if trials["kept"]:
        tried = max(max(one.values()) for one in trials["kept"].values())
        lines.append(
            f"the cross-encoder reads the first {plan.kept}: {tried:.4f}"
            if plan.kept
            else f"the cross-encoder is left out: it reaches {tried:.4f} at best"
        )
    value = trials["diversity"][str(plan.diversity)][METRIC]
    lines.append(f"diversity {plan.diversity:g}: {value:.4f}")
    return lines
