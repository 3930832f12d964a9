from report.examples import estimate, metrics, nested, rows_of, words

from sie_jax.report.sections import nested as section


def test_every_run_over_all_queries_and_what_the_folds_exported():
    assert section.part(metrics()) is None
    part = section.part(metrics(nested=nested()))
    assert rows_of(part) == [
        ["run", "ndcg@10"],
        ["bm25", "0.65000.6400 to 0.6600"],
        ["exported", "0.70000.6900 to 0.7100"],
    ]
    text = words(part.html)
    for shown in (
        "dealt into 3 folds: 148 queries with a positive gain, and 2 without",
        "what the query's fold exported: stack (2 of 3), linear (1 of 3).",
        "does not cover the chance of training",
    ):
        assert shown in text, shown
    undefined = {"value": 0.7, "low": None, "high": None}
    one = nested() | {"ndcg@10": {"bm25": estimate(0.65), "exported": undefined}}
    assert "no interval" in section.part(metrics(nested=one)).html
