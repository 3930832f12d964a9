from report.examples import metrics, rows_of, words

from sie_jax.report.sections import contest as section

STANDINGS = {
    "bm25": {"value": 0.7, "difference": -0.05, "standard_error": 0.01},
    "linear": {"value": 0.75, "difference": 0.0, "standard_error": 0.0},
    "stack": {"value": 0.8, "difference": 0.05, "standard_error": 0.0125},
}


def test_every_contestant_with_its_distance_to_linear_the_best_first():
    assert section.part(metrics()) is None
    told = {"on": "validation queries", "queries": 1200, "few": False, "standings": STANDINGS}
    verdict = {**metrics().get("verdict", {}), "ranker": "stack"}
    part = section.part(metrics(contest=told, verdict=verdict))
    assert rows_of(part) == [
        ["ranker", "ndcg@10", "minus linear", "standard error"],
        ["stack", "0.8000", "+0.0500", "0.0125"],
        ["linear", "0.7500", "+0.0000", "0.0000"],
        ["bm25", "0.7000", "−0.0500", "0.0100"],
    ]
    text = words(part.html)
    assert "on the 1,200 validation queries; the test queries had no part in it" in text
    assert "stack is exported." in text
    few = section.part(metrics(contest=told | {"few": True}, verdict=verdict))
    assert "because so few queries are no ground to choose on." in words(few.html)
    assert section.part(metrics(contest=told | {"standings": {}}, verdict=verdict)) is None
