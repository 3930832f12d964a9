"""The sentences of the verdict on constructed scores, whole."""

import json

import numpy as np
import pytest

from sie_jax.evaluation import Predictions, claims
from sie_jax.evaluation.intervals import Judgments
from sie_jax.evaluation.verdict import BASELINES, Training, by_query, verdict

TRAINING = Training(queries=1_240, pairs=12_400, steps=300, steps_per_epoch=100, pretrained=True)
BASIS = (
    "This rests on 1,240 training queries with 12,400 pairs, 300 training steps and 100 test "
    "queries."
)
PRETRAINED = "Start from a pretrained model (--config.model.pretrained=FOLDER)."


def spread(mean, deviation, *, seed, queries=100):
    """Values of exactly this mean and standard deviation (divisor Q - 1)."""
    values = np.random.default_rng(seed).normal(size=queries)
    return mean + deviation * (values - values.mean()) / values.std(ddof=1)


BM25 = spread(0.65, 0.2, seed=0)
BASELINE_RUNS = {"random": spread(0.5, 0.2, seed=1)[None], "bm25": BM25[None]}
# t(0.975, 99) · 0.1 / sqrt(100) = 0.0198


def above(difference, deviation=0.1, *, seed):
    """One seed's nDCG by query: that of BM25 and a difference."""
    return (BM25 + spread(difference, deviation, seed=seed))[None]


def three(difference, *, seed, by_seed=0.001, base=BM25):
    """Three seeds, on average `difference` above `base`."""
    return base + np.stack(
        [spread(difference + by_seed * n, 0.02, seed=seed + n) for n in (-1, 0, 1)]
    )


def test_clearly_above_the_best_baseline():
    runs = {**BASELINE_RUNS, "linear": above(0.02, seed=2), "stack": above(0.05, seed=3)}
    found = verdict(runs, TRAINING, ranker="stack")
    assert found["notes"] == [
        "The exported ranker, stack, is above the best baseline, bm25: on 100 test queries, "
        "ndcg@10 is 0.7000 against 0.6500, and the difference is +0.0500 (95% interval +0.0302 to "
        "+0.0698).",
        BASIS,
    ]
    assert (found["ranker"], found["best_baseline"]) == ("stack", "bm25")
    assert found["beats_baseline"] is True
    assert found["ndcg@10"] == claims.fixed(runs["stack"][0] - BM25)
    assert found["weighting"] == {"value": None, "low": None, "high": None}


def test_not_resolved():
    runs = {**BASELINE_RUNS, "linear": above(0.02, seed=2), "stack": above(0.01, seed=3)}
    found = verdict(runs, TRAINING._replace(pretrained=False), ranker="stack")
    assert found["notes"] == [
        "It is not resolved whether the exported ranker, stack, is above the best baseline, bm25: "
        "on 100 test queries, ndcg@10 is 0.6600 against 0.6500, and the difference is +0.0100 (95% "
        "interval −0.0098 to +0.0298, which includes zero).",
        BASIS,
        "Deploy linear for now: it ranks no worse and costs less.",
        PRETRAINED,
        # 100 · (0.0198 / 0.01)² = 394
        "Test on more queries: a difference of this size takes about 400 to be resolved.",
    ]
    assert found["beats_baseline"] is None


def test_below_a_baseline_after_too_little_training_and_too_few_queries():
    runs = {
        **BASELINE_RUNS,
        "linear": above(-0.02, seed=2),
        "uniform": above(-0.05, seed=3),
    }
    first = {run: rows[:, :40] for run, rows in runs.items()}
    training = TRAINING._replace(steps=50, pretrained=False)
    found = verdict(runs, training, ranker="uniform")
    assert found["notes"] == [
        "The exported ranker, uniform, is below the best baseline, bm25: on 100 test queries, "
        "ndcg@10 is 0.6000 against 0.6500, and the difference is −0.0500 (95% interval −0.0698 to "
        "−0.0302).",
        BASIS.replace("300", "50"),
        "Training took 50 steps, less than one epoch of 100, so the trained models have not seen "
        "every pair.",
        "Below the best baseline, bm25 (0.6500), on the test queries: linear (0.6300).",
        "Deploy bm25 for now.",
        PRETRAINED,
        "Train on more queries.",
    ]
    assert found["beats_baseline"] is False
    few = "With fewer than 50 test queries (40), a few of them decide the result."
    assert few in verdict(first, training, ranker="uniform")["notes"]
    assert few not in found["notes"]


def test_a_baseline_is_exported():
    runs = {**BASELINE_RUNS, "linear": above(-0.02, seed=2), "uniform": above(-0.05, seed=3)}
    found = verdict(runs, TRAINING, ranker="bm25")
    assert found["notes"] == [
        "The exported ranker is a baseline, bm25: without the test queries, no ranker of our own "
        "was shown to be better.",
        BASIS,
        "Below the best baseline, bm25 (0.6500), on the test queries: linear (0.6300), uniform "
        "(0.6000).",
        "Train on more queries.",
    ]
    assert found["beats_baseline"] is False
    assert found["ndcg@10"] == {"value": 0, "low": 0, "high": 0}


def test_a_baseline_is_exported_and_another_is_higher_on_the_test_queries():
    runs = {**BASELINE_RUNS, "current": above(0.05, seed=2)}
    found = verdict(runs, TRAINING, ranker="bm25")
    assert found["notes"][:2] == [
        "The exported ranker is a baseline, bm25: without the test queries, no ranker of our own "
        "was shown to be better.",
        "Another baseline, current, is higher than bm25: on 100 test queries, ndcg@10 is 0.6500 "
        "against 0.7000, and the difference is −0.0500 (95% interval −0.0698 to −0.0302).",
    ]
    assert (found["best_baseline"], found["beats_baseline"]) == ("current", False)


FOLDED = (
    "This rests on 1,240 training queries with 12,400 pairs, 300 training steps in the smallest "
    "fold, and 100 test queries in all folds."
)
FIXED = (
    "The interval against the baseline is about these 3 rankers as they were trained, over the "
    "queries of this set: it does not hold the chance of training."
)
TESTED = "Over all 100 queries, each tested once by 3-fold cross-validation: "


def test_over_folds_it_is_about_what_each_of_them_exported():
    runs = {**BASELINE_RUNS, "linear": above(0.02, seed=2), "exported": above(0.05, seed=3)}
    of_folds = ("stack", "linear", "stack")
    found = verdict(runs, TRAINING, ranker="exported", folds=of_folds)
    assert found["notes"] == [
        f"{TESTED}the exported ranker, stack in 2 folds and linear in one fold, is above the best "
        "baseline, bm25: on 100 test queries, ndcg@10 is 0.7000 against 0.6500, and the difference "
        "is +0.0500 (95% interval +0.0302 to +0.0698).",
        FOLDED,
        FIXED,
    ]
    without = verdict(runs, TRAINING, ranker="exported")
    assert {**found, "notes": 0} == {**without, "notes": 0}
    below = verdict(
        {**runs, "exported": above(0.01, seed=3)}, TRAINING, ranker="exported", folds=of_folds
    )
    assert below["notes"][0].startswith(f"{TESTED}it is not resolved whether the exported ranker")
    assert "Deploy linear for now: it ranks no worse and costs less." in below["notes"]
    # where that is what every fold exported, there is nothing else to deploy
    runs["exported"] = runs["linear"] = above(0.01, seed=3)
    linear = verdict(runs, TRAINING, ranker="exported", folds=("linear",) * 3)
    assert linear["beats_baseline"] is None
    assert not any(note.startswith("Deploy") for note in linear["notes"])


def test_over_folds_that_all_exported_baselines():
    runs = {**BASELINE_RUNS, "current": above(0.05, seed=2), "exported": above(0.02, seed=3)}
    found = verdict(runs, TRAINING, ranker="exported", folds=("current", "bm25", "bm25"))
    assert found["notes"] == [
        f"{TESTED}the exported ranker is a baseline, bm25 in 2 folds and current in one fold: "
        "without the test queries, no ranker of our own was shown to be better.",
        "Another baseline, current, is higher than bm25 in 2 folds and current in one fold: on 100 "
        "test queries, ndcg@10 is 0.6700 against 0.7000, and the difference is −0.0300 (95% "
        f"{interval_of(runs)}).",
        FOLDED,
        "Train on more queries.",
    ]
    assert found["beats_baseline"] is False
    runs["exported"] = runs["current"]
    assert verdict(runs, TRAINING, ranker="exported", folds=("current",) * 3)["notes"] == [
        f"{TESTED}the exported ranker is a baseline, current in 3 folds: without the test queries, "
        "no ranker of our own was shown to be better.",
        FOLDED,
        "Train on more queries.",
    ]


def interval_of(runs):
    found = claims.fixed(runs["exported"][0] - runs["current"][0])
    low, high = (f"{found[name]:+.4f}".replace("-", "−") for name in ("low", "high"))
    return f"interval {low} to {high}"


def weighed(difference):
    uniform = three(0.03, seed=10)
    return {
        **BASELINE_RUNS,
        "uniform": uniform,
        "weighted": three(difference, seed=20, base=uniform),
    }


@pytest.mark.parametrize(
    ("difference", "claim", "after", "signed"),
    [
        (0.02, "Weighting helped", "0.7000", "+0.0200"),
        (-0.02, "Weighting hurt", "0.6600", "−0.0200"),
        (0.001, "It is not resolved whether weighting helped", "0.6810", "+0.0010"),
    ],
)
def test_weighting_is_judged_over_queries_and_seeds(difference, claim, after, signed):
    runs = weighed(difference)
    found = verdict(runs, TRAINING, ranker="weighted", seed=1)
    expected = claims.procedure(runs["weighted"] - runs["uniform"])
    assert found["weighting"] == pytest.approx(expected)
    low, high = (f"{expected[name]:+.4f}".replace("-", "−") for name in ("low", "high"))
    zero = ", which includes zero" if "resolved" in claim else ""
    assert found["notes"][1] == (
        f"{claim}: over 3 seeds, ndcg@10 is {after} weighted against 0.6800 uniform, and the "
        f"difference is {signed} (95% interval {low} to {high}{zero})."
    )
    # the first sentence is about the one ranker that is exported
    assert found["ndcg@10"] == claims.fixed(runs["weighted"][1] - BM25)


def test_one_seed_claims_nothing_about_weighting():
    runs = {run: rows[:1] for run, rows in weighed(0.02).items()}
    found = verdict(runs, TRAINING, ranker="weighted")
    assert found["notes"] == [
        "The exported ranker, weighted, is above the best baseline, bm25: on 100 test queries, "
        "ndcg@10 is 0.6980 against 0.6500, and the difference is +0.0480 (95% interval +0.0421 to "
        "+0.0539).",
        "Nothing is claimed about weighting: ndcg@10 is 0.6980 weighted against 0.6790 uniform, "
        "but one seed cannot tell weighting from the chance of training, so train three seeds or "
        "more (--config.train.seeds=3).",
        BASIS,
    ]
    assert found["weighting"] == {
        "value": pytest.approx(0.019),
        "low": None,
        "high": None,
    }


def test_without_queries_nothing_is_known():
    runs = {run: np.full_like(rows, np.nan) for run, rows in weighed(0.02).items()}
    found = verdict(runs, TRAINING, ranker="weighted")
    assert found["beats_baseline"] is None
    assert found["notes"][:2] == [
        "It is unknown whether the exported ranker, weighted, is above the best baseline, random, "
        "because there are too few test queries (0).",
        "It is unknown whether weighting helped, because there are too few test queries.",
    ]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_verdict_is_plain_json_and_leaves_undefined_queries_out():
    runs = weighed(0.02)
    found = verdict(runs, TRAINING, ranker="weighted")
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    undefined = {
        run: np.append(rows, np.full((len(rows), 1), np.nan), 1) for run, rows in runs.items()
    }
    assert verdict(undefined, TRAINING, ranker="weighted") == found


def test_a_ranker_without_scores_or_baselines_is_refused():
    with pytest.raises(ValueError, match="the exported ranker 'stack' is not among the runs"):
        verdict(BASELINE_RUNS, TRAINING, ranker="stack")
    with pytest.raises(ValueError, match="no baseline is among the runs"):
        verdict({"linear": BM25[None]}, TRAINING, ranker="linear")


def test_scores_by_query_are_in_the_order_of_the_ids():
    labels = np.array([0, 1, 1, 0, 0])
    judgments = Judgments(
        labels, ["b", "b", "a", "a", "c"], ["1", "2", "3", "4", "5"], ("no", "yes"), (0.0, 1.0)
    )
    right, wrong = (Predictions(labels, sign * labels.astype(float)) for sign in (1, -1))
    found = by_query(judgments, {"ours": [right, wrong], BASELINES[0]: [right]})
    second = 1 / np.log2(3)  # float32
    np.testing.assert_allclose(found["ours"], [[1, 1, np.nan], [second, second, np.nan]], rtol=1e-6)
    assert found["random"].shape == (1, 3)
