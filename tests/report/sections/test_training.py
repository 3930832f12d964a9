from report.examples import metrics, words

from sie_jax.report.sections import training

LINES = [
    {"run": "uniform-0", "step": 10, "loss": 1.0},
    {"run": "uniform-0", "step": 20, "validation_ndcg@10": 0.7},
    {"run": "warmup", "step": 10, "loss": 2.0},
    {"run": "pretrain-0", "step": 10, "masked_loss": 8.0},
]


def test_the_runs_that_have_a_cost_are_drawn():
    part = training.part(metrics(), LINES)
    assert part.html.count("<svg") == 2
    text = words(part.html)
    for shown in ("uniform", "training loss", "validation nDCG@10"):
        assert shown in text, shown
    for absent in ("warmup", "pretrain", "validation loss"):
        assert absent not in text, absent


def test_without_a_line_to_draw_it_is_left_out():
    assert training.part(metrics(), LINES[2:]) is None
    assert training.part(metrics(cost={}), LINES) is None
