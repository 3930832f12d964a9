from sie_jax.report import order


def test_metrics_are_of_all_labels_or_of_one():
    by_run = {
        "random": {"ndcg@10": 0, "recall_exact": 0},
        "uniform": {"recall@10": 0, "ndcg@10": 0, "precision_exact": 0},
    }
    assert order.main_metrics(by_run) == ["ndcg@10", "recall@10"]
    assert order.label_metrics(by_run) == ["recall_exact", "precision_exact"]


def test_runs_with_a_cost_come_first_and_keep_their_order():
    by_run = {"random": 1, "weighted": 2, "bm25": 3, "uniform": 4}
    found = order.trained_first(by_run, {"uniform": {}, "weighted": {}})
    assert list(found.items()) == [("weighted", 2), ("uniform", 4), ("random", 1), ("bm25", 3)]
