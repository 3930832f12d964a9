from report.examples import UNDEFINED, metrics, rows_of

from sie_jax.report.sections import overfitting


def test_the_gap_is_the_metric_on_training_pairs_minus_that_on_test_pairs():
    assert overfitting.part(metrics()) is None
    part = overfitting.part(metrics(train={"uniform": {"ndcg@10": 0.9095, "loss": 0.1}}))
    assert rows_of(part)[1:] == [["uniform", "ndcg@10", "0.9095", "0.8095", "+0.1000"]]


def test_a_metric_that_is_undefined_on_the_test_pairs_is_left_out():
    of_run = metrics(train={"uniform": {"ndcg@10": 0.9}})
    of_run["test"]["uniform"]["ndcg@10"] = UNDEFINED
    assert rows_of(overfitting.part(of_run))[1:] == []
