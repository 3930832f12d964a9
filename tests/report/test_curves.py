import pytest

from sie_jax.report import curves

TITLES = {"loss": "training loss", "validation_loss": "validation loss"}


def test_one_curve_per_run_and_seed_in_the_order_of_the_lines() -> None:
    lines = [
        {"run": "uniform-0", "step": 10, "loss": 1.0, "gradient_norm": 3.0},
        {"run": "uniform-1", "step": 10, "loss": 1.5},
        {"run": "uniform-0", "step": 20, "loss": 0.5},
        {"run": "uniform-0", "step": 20, "epoch": 1, "validation_loss": 0.7},
        {"run": "weighted-0", "step": 10, "loss": 2.0},
    ]
    assert curves.by_run(iter(lines), iter(["uniform", "weighted"]), TITLES) == {
        "training loss": {
            "uniform": [([10, 20], [1.0, 0.5]), ([10], [1.5])],
            "weighted": [([10], [2.0])],
        },
        "validation loss": {"uniform": [([20], [0.7])], "weighted": []},
    }


def test_runs_that_are_not_asked_for_are_left_out() -> None:
    lines = [
        {"run": "warmup", "step": 1, "loss": 1.0},
        {"run": "uniform-extra-0", "step": 1, "loss": 1.0},
    ]
    assert curves.by_run(lines, ["uniform"], TITLES)["training loss"] == {"uniform": []}
    found = curves.by_run(lines, ["uniform-extra"], TITLES)["training loss"]
    assert found == {"uniform-extra": [([1], [1.0])]}


def test_no_lines_no_curves() -> None:
    assert curves.by_run([], [], TITLES) == {title: {} for title in TITLES.values()}


@pytest.mark.parametrize(
    ("lines", "titles"),
    [
        ([], []),
        ([{"run": "uniform-0", "step": 1, "loss": 1.0}], ["training loss"]),
        ([{"run": "warmup", "step": 1, "loss": 1.0}], []),
    ],
)
def test_a_quantity_without_a_curve_has_no_plot(lines, titles) -> None:
    plots = curves.drawn(lines, ["uniform"], TITLES)
    assert [next(title for title in TITLES.values() if title in plot) for plot in plots] == titles
