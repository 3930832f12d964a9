from report.examples import metrics, rows_of

from sie_jax.report.sections import weights


def test_effective_sample_size_and_variance():
    assert weights.part(metrics()) is None
    assert weights.part(metrics(weights={})) is None
    amounts = {
        "uniform": {"effective_sample_size": 1.0, "gradient_variance_ratio": 1.0},
        "weighted": {"effective_sample_size": 0.53125},  # some rows have no weight
    }
    assert rows_of(weights.part(metrics(weights=amounts)))[1:] == [
        ["uniform", "1.0000", "1.0000"],
        ["weighted", "0.5312", "–"],
    ]
