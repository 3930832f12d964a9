from report.examples import estimate, metrics, rows_of

from sie_jax.report.sections import cross_validation


def test_metrics_out_of_fold():
    assert cross_validation.part(metrics()) is None
    found = {"ndcg@10": estimate(0.75), "recall_exact": estimate(0.5)}
    part = cross_validation.part(metrics(cross_validation=found))
    assert rows_of(part) == [["predictions", "ndcg@10"], ["out of fold", "0.75000.7400 to 0.7600"]]
    assert "raters" not in part.html


def test_correlation_with_the_disagreement_of_raters():
    part = cross_validation.part(
        metrics(
            cross_validation={"ndcg@10": estimate(0.75)},
            rater_disagreement={"loss": estimate(0.25), "el2n": estimate(-0.125)},
        )
    )
    assert rows_of(part)[2:] == [
        ["score", "correlation", "95% interval"],
        ["loss", "+0.2500", "+0.2400 to +0.2600"],
        ["el2n", "−0.1250", "−0.1350 to −0.1150"],
    ]
