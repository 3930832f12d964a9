"""Contest: which ranker is exported, decided without the test pairs; and the stack among them."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from sie_jax import processes
from sie_jax.data.features import RUN, blended, standardise
from sie_jax.data.preparing import Prepared
from sie_jax.data.translation import Translation
from sie_jax.evaluation import Predictions, from_columns, predictions, ranking
from sie_jax.evaluation import contest as judging
from sie_jax.evaluation.contest import FEWEST, INCUMBENT, Outcome, Standing
from sie_jax.evaluation.verdict import BASELINES, METRIC, by_query
from sie_jax.files import read_json, write_json
from sie_jax.models import linear as fitting
from sie_jax.models import trees as boosting
from sie_jax.models.linear import LinearRanker
from sie_jax.models.ranker import BLEND, STACK, TRANSLATION, TREES
from sie_jax.models.trees import TreeRanker
from sie_jax.passes.sweep import Columns
from sie_jax.stages.cross_fit import OutOfFold
from sie_jax.stages.features import Features
from sie_jax.stages.linear import fitted, folds_of, lists_of
from sie_jax.stages.pair_runs import judged
from sie_jax.stages.rehearse import Rehearsed
from sie_jax.stages.train import Trained
from sie_jax.stages.translation import out_of_fold, translated
from sie_jax.stages.untrained import untrained
from sie_jax.workdir import Job, Made, stage

FILE = "contest.json"
_WHICH = {"train": "training queries, out of fold", "validation": "validation queries"}
STACKED = (TRANSLATION, "uniform", "weighted")
"""The runs whose scores the stack is made of, beside `linear`."""


@dataclass(frozen=True)
class Contestants:
    """What may be exported besides the baselines, and what it is made of.

    trained: the first seed's runs by name.
    """

    features: Made[Features]
    linear: Made[LinearRanker]
    trees: Made[TreeRanker]
    translation: Made[Translation]
    trained: Mapping[str, Made[Trained]]


class Contest(NamedTuple):
    """What the contest gave.

    outcome: see `evaluation.contest`. split: the pairs it was held on, `train` where each was
    scored by a model that had not seen its query. agreement: the share of these queries to which
    the winner and the best encoder give the same first item. stack: None where there were too few
    queries to fit one.
    """

    outcome: Outcome
    split: str
    agreement: float
    stack: LinearRanker | None


def read(made: Made[Contest]) -> Contest:
    """What the contest gave."""
    values = read_json(made.folder / FILE)
    outcome, stack = values["outcome"], values["stack"]
    standings = {name: Standing(**one) for name, one in outcome["standings"].items()}
    return Contest(
        Outcome(**{**outcome, "standings": standings}),
        values["split"],
        values["agreement"],
        None if stack is None else LinearRanker.from_json(stack),
    )


@stage(leaves=(FILE,), read=read, trains=False)
def contest(
    job: Job,
    prepared: Made[Prepared],
    contestants: Contestants,
    held_out: Made[OutOfFold] | None,
    rehearsed: Mapping[str, tuple[Made[Rehearsed], ...]],
    *,
    split_seed: int,
) -> None:
    """Leaves contest.json.

    The contestants are the baselines, `linear`, `trees`, `blend` (`blend_of`), `translation`, the
    encoders of the first seed, and the stack.
    With folds they are judged on the training queries, each scored by models that had not seen it;
    without, on the validation queries.

    The stack is the linear listwise ranker over the features, the scores of `linear` and of
    `translation`, and those of the encoders of STACKED. Where it is judged it is
    fitted on the other folds; what is left is fitted on all. With folds the models that scored
    those others had seen the query: that gain is small and not taken off.

    held_out: the stage cross_fit, with the models of `uniform`. rehearsed: those of the other runs,
    one for each fold.
    """
    pairs, known = prepared.value, contestants.features.value
    if held_out is None:
        split = "validation"
        predicted = {run: made.value.validation for run, made in contestants.trained.items()}
        ours = contestants.linear.value.scores(known.names, known.values[split])
        boosted = contestants.trees.value.scores(known.names, known.values[split])
        words = translated(contestants.translation.value, pairs, split)
        folds = folds_of(pairs, split, seed=split_seed) if _queries(pairs, split) > 1 else None
    else:
        split = "train"
        predicted = _out_of_fold(held_out.value, rehearsed)
        folds = held_out.value.pairs["fold"].to_numpy()
        folds = folds[folds >= 0]
        described = lists_of(pairs, split, known.values[split])
        ours, boosted = fitting.held_out(described, folds), boosting.held_out(described, folds)
        words = out_of_fold(pairs, folds)
    found = dict(untrained(pairs, known, split, seed=split_seed))
    del found["random"]
    found[INCUMBENT] = Predictions(None, ours)
    found[TREES] = Predictions(None, boosted)
    found[BLEND] = Predictions(None, blend_of(pairs, split, ours, boosted))
    found[TRANSLATION] = Predictions(None, words)
    found |= {run: from_columns(columns, pairs.scale.gains) for run, columns in predicted.items()}
    stack = None
    members = {run: found[run].scores for run in STACKED if run in found}
    columns = stacked(pairs, split, known, ours, members)
    lists = lists_of(pairs, split, columns)
    if folds is not None and (lists.gains > 0).any():
        found[STACK] = Predictions(None, fitting.held_out(lists, folds))
        stack = fitted(stacked_names(known.names, members), lists, folds)
    ndcg = {
        name: values[0]
        for name, values in by_query(
            judged(pairs, split), {name: [one] for name, one in found.items()}
        ).items()
    }
    outcome = judging.decide(ndcg, baselines=BASELINES, encoders=tuple(predicted))
    for line in _lines(outcome, split):
        job.say(line)
    judgments = judged(pairs, split)
    content = {
        "split": split,
        "agreement": judging.same_first(
            found[outcome.ranker].scores,
            found[outcome.encoder].scores,
            np.unique(judgments.query_ids, return_inverse=True)[1],
            ranking.tie_order(judgments.example_ids),
        ),
        "outcome": {
            **outcome._asdict(),
            "standings": {name: one._asdict() for name, one in outcome.standings.items()},
        },
        "stack": None if stack is None else asdict(stack),
    }
    processes.alone(write_json, job.folder / FILE, content)


def stacked_names(features: tuple[str, ...], members: Iterable[str]) -> tuple[str, ...]:
    """The names of the columns that `stacked` gives."""
    return (*features, *(column_of(run) for run in (INCUMBENT, *members)))


def column_of(run: str) -> str:
    """The name of the column with a run's score; no feature is called so."""
    return RUN + run


def stacked(
    prepared: Prepared,
    split: str,
    features: Features,
    linear: np.ndarray,
    members: Mapping[str, np.ndarray],
) -> np.ndarray:
    """What the stack ranks by: features, the score of `linear`, those of its other members.

    All are centred within the query; all but the score of `linear`, which is a sum of features, are
    of variance 1 there.
    """
    query_index = _query_index(prepared, split)
    others = [standardise(scores[:, None], query_index) for scores in members.values()]
    return np.concatenate([features.values[split], linear[:, None], *others], axis=1)


def blend_of(prepared: Prepared, split: str, *scores: np.ndarray) -> np.ndarray:
    """What `blend` ranks by: the scores of `linear` and `trees`, each standardised, summed."""
    return blended(scores, _query_index(prepared, split))


def _query_index(prepared: Prepared, split: str) -> np.ndarray:
    query_ids = prepared.split(split)["query_id"].to_pylist()
    return np.unique(np.asarray(query_ids, str), return_inverse=True)[1]


def _out_of_fold(
    held_out: OutOfFold, rehearsed: Mapping[str, tuple[Made[Rehearsed], ...]]
) -> dict[str, Columns]:
    """Of each run, what is predicted for the training pairs by models that left them out."""
    uniform = predictions.predicted(held_out.training())
    found = {"uniform": uniform}
    for run, parts in rehearsed.items():
        found[run] = {name: np.full_like(values, np.nan) for name, values in uniform.items()}
        for part in parts:
            for name, values in part.value.predictions.items():
                found[run][name][part.value.rows] = values
    return found


def _queries(prepared: Prepared, split: str) -> int:
    return len(prepared.split(split)["query_id"].unique())


def told(found: Contest) -> dict[str, Any]:
    """What metrics.json says of the contest."""
    return {
        "on": _WHICH[found.split],
        "queries": found.outcome.queries,
        "few": found.outcome.queries < FEWEST,
        "standings": {name: one._asdict() for name, one in found.outcome.standings.items()},
    }


def choice(found: Contest) -> str:
    """The verdict's sentence on how the exported ranker was chosen."""
    outcome, which = found.outcome, _WHICH[found.split]
    if outcome.queries < FEWEST:
        return (
            f"{outcome.ranker} is exported without a contest, because {outcome.queries} {which} "
            "are too few to choose by."
        )
    return (
        f"It was chosen on {outcome.queries:,} {which}, without the test queries; trained models "
        "are those of the first seed."
    )


def _lines(outcome: Outcome, split: str) -> list[str]:
    """For the console: how all ranked, and whether that decided what is exported."""
    order = sorted(outcome.standings.items(), key=lambda item: -item[1].value)
    values = ", ".join(f"{name} {one.value:.4f}" for name, one in order)
    on = f"{outcome.queries:,} {_WHICH[split]}"
    if outcome.queries >= FEWEST:
        return [f"contest by {METRIC} on {on}: {values}: {outcome.ranker} is exported"]
    way = "; --config.train.folds=5 chooses on all training queries"
    return [
        *([f"{METRIC} on {on}: {values}"] * (outcome.queries > 0)),
        f"model/ holds {outcome.ranker}, whatever ranked best: {on} are too few to choose by "
        f"({FEWEST} are needed){way if split == 'validation' else ''}",
    ]
