from sie_jax.report import curves


def test_one_curve_per_run_and_seed_in_the_order_of_the_lines() -> None:
    lines = [
        {"run": "uniform-0", "step": 10, "loss": 1.0, "gradient_norm": 3.0},
        {"run": "uniform-1", "step": 10, "loss": 1.5},
        {"run": "uniform-0", "step": 20, "loss": 0.5},
        {"run": "uniform-0", "step": 20, "epoch": 1, "validation_loss": 0.7},
        {"run": "weighted-0", "step": 10, "loss": 2.0},
    ]
    assert curves.by_run(lines, ["uniform", "weighted"]) == {
        "training loss": {
            "uniform": [([10, 20], [1.0, 0.5]), ([10], [1.5])],
            "weighted": [([10], [2.0])],
        },
        "validation loss": {"uniform": [([20], [0.7])], "weighted": []},
        "validation accuracy": {"uniform": [], "weighted": []},
        "validation nDCG@10": {"uniform": [], "weighted": []},
    }


def test_runs_that_are_not_asked_for_are_left_out() -> None:
    lines = [
        {"run": "warmup", "step": 1, "loss": 1.0},
        {"run": "uniform-extra-0", "step": 1, "loss": 1.0},
    ]
    assert curves.by_run(lines, ["uniform"])["training loss"] == {"uniform": []}
    assert curves.by_run(lines, ["uniform-extra"])["training loss"]["uniform-extra"] == [
        ([1], [1.0])
    ]


def test_no_lines_no_curves() -> None:
    assert curves.by_run([], []) == {title: {} for title in curves.TITLES.values()}


def test_quantities_of_another_kind_by_their_own_titles():
    lines = [
        {"run": "pretrain-0", "step": 10, "loss": 9.0, "masked_loss": 8.0},
        {"run": "pretrain-0", "step": 20, "held_out_perplexity": 50.0},
        {"run": "uniform-0", "step": 10, "loss": 1.0},
    ]
    found = curves.by_run(lines, ["pretrain"], curves.PRETRAINING_TITLES)
    assert found["loss of masked tokens"] == {"pretrain": [([10], [8.0])]}
    assert found["held-out perplexity"] == {"pretrain": [([20], [50.0])]}
    assert "training loss" not in found
    assert curves.by_run(lines, ["uniform"])["training loss"] == {"uniform": [([10], [1.0])]}
