import pytest
from report.examples import estimate, metrics, words

from sie_jax.report import terminal
from sie_jax.report.sections import verdict


def found(of_run):
    return verdict.verdict(of_run, run="weighted", reference="uniform", metric="ndcg@10")


@pytest.mark.parametrize(
    ("difference", "kind", "claim"),
    [
        (0.0307, "helped", "Weighting helped:"),
        (-0.0307, "hurt", "Weighting hurt:"),
        (0.0099, "unresolved", "It is not resolved whether weighting helped:"),
        (-0.0099, "unresolved", "It is not resolved whether weighting helped:"),
        (0.01, "unresolved", "It is not resolved whether weighting helped:"),  # touches zero
    ],
)
def test_the_claim_follows_the_interval(difference, kind, claim):
    result = found(metrics(difference))
    assert (result.kind, result.claim) == (kind, claim)
    signed = f"{difference:+.4f}".replace("-", "−")
    after = f"{0.8095 + difference:.4f}"
    assert f"ndcg@10 went from 0.8095 (uniform) to {after} (weighted)." in result.evidence
    assert f"The difference is {signed}, the mean over 2 seeds," in result.evidence
    assert result.evidence.endswith("includes zero.") == (kind == "unresolved")


def test_the_claim_of_one_seed_says_that_it_is_one():
    of_run = metrics(0.05)
    of_run["seeds"]["weighted"] = {
        name: values[:1] for name, values in of_run["seeds"]["weighted"].items()
    }
    result = found(of_run)
    assert result.kind == "helped"
    assert result.claim == "Weighting helped in this one training run:"
    assert "the mean over 1 seed, and its 95% interval is +0.0400 to +0.0600." in result.evidence
    assert result.evidence.endswith("train more seeds.")


def test_without_an_interval_nothing_is_claimed():
    of_run = metrics()
    of_run["difference"]["weighted"]["ndcg@10"] = {"value": 0.5, "low": None, "high": None}
    assert found(of_run).kind == "unknown"
    result = found(metrics() | {"difference": {}})
    assert result.kind == "unknown"
    assert result.claim == "It is unknown whether weighting helped:"


def test_the_part_is_of_the_run_and_the_metric_asked_for():
    of_run = metrics()
    of_run["difference"]["random"]["recall_exact"] = estimate(-0.5)
    html = verdict.part(of_run, run="random", metric="recall_exact").html
    assert 'class="verdict hurt"' in html
    assert "recall_exact went from 0.6100 (uniform) to 0.1100 (random)." in words(html)


@pytest.mark.parametrize(
    ("beats", "kind"), [(True, "helped"), (False, "hurt"), (None, "unresolved")]
)
def test_the_page_and_the_terminal_say_the_same_of_a_verdict(beats, kind):
    notes = ["stack <b> is above & beyond.", "Weighting hurt.", "This rests on 3 test queries."]
    of_run = metrics() | {"verdict": {"beats_baseline": beats, "notes": notes}}
    html = verdict.part(of_run).html
    assert f'class="verdict {kind}"' in html
    assert words(html) == " ".join(terminal.verdict(of_run).plain.split()) == " ".join(notes)
    assert words(html.split("</p>")[0]) == notes[0]


def test_the_verdict_over_folds_comes_first():
    def one(note, beats):
        return {"notes": [note, "Why."], "beats_baseline": beats}

    of_folds = {"verdict": one("Over all queries.", True)}
    html = verdict.part(metrics(nested=of_folds, verdict=one("On some.", None))).html
    first, second = html.index("Over all queries."), html.index("On some.")
    assert first < second
    assert html.index('class="verdict helped"') < first < html.index('class="verdict unresolved"')
    assert html.count("<li>Why.</li>") == 2
