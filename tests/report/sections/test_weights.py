from report.examples import metrics, rows_of

from sie_jax.report.sections import weights

AMOUNTS = {
    "uniform": {"effective_sample_size": 1.0, "gradient_variance_ratio": 1.0},
    "weighted": {"effective_sample_size": 0.53125},  # some rows have no weight
}


def test_effective_sample_size():
    assert weights.part(metrics()) is None
    assert weights.part(metrics(weights={})) is None
    part = weights.part(metrics(weights=AMOUNTS))
    assert rows_of(part)[1:] == [["uniform", "1.0000"], ["weighted", "0.5312"]]
    assert "variance" not in part.html


def test_what_sampling_does_to_the_variance_is_said_where_rows_are_drawn():
    part = weights.part(metrics(weights=AMOUNTS), sampled=True)
    assert rows_of(part)[1:] == [["uniform", "1.0000", "1.0000"], ["weighted", "0.5312", "–"]]
    assert "The variance of gradients is" in part.html
