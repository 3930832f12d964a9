from report.examples import NOISE, UNDEFINED, metrics, rows_of, words

from sie_jax.report.sections import overfitting


def test_the_gap_is_the_metric_on_training_pairs_minus_that_on_test_pairs():
    assert overfitting.part(metrics()) is None
    part = overfitting.part(metrics(train={"uniform": {"ndcg@10": 0.9095, "loss": 0.1}}))
    assert rows_of(part)[1:] == [["uniform", "ndcg@10", "0.9095", "0.8095", "+0.1000"]]


def test_a_metric_that_is_undefined_on_the_test_pairs_is_left_out():
    of_run = metrics(train={"uniform": {"ndcg@10": 0.9}})
    of_run["test"]["uniform"]["ndcg@10"] = UNDEFINED
    assert rows_of(overfitting.part(of_run))[1:] == []


def test_where_labels_are_known_to_be_wrong_the_gap_is_explained():
    of_run = metrics(train={"uniform": {"ndcg@10": 0.9}})
    said = words(overfitting.part(of_run, NOISE).html)
    assert "The training labels are noisy (20.0% are wrong) and the test labels are clean" in said
    noisy = NOISE["train"] | {"wrong": 1}
    said = words(overfitting.part(of_run, NOISE | {"test": noisy}).html)
    assert "and so are the test labels (10.0%)." in said
    assert "nothing is known of the test labels" in words(
        overfitting.part(of_run, NOISE | {"test": None}).html
    )
    for clean in ({}, NOISE | {"train": None}, NOISE | {"train": NOISE["test"]}):
        assert "noisy" not in overfitting.part(of_run, clean).html
