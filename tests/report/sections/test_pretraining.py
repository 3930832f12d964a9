from report.examples import metrics, pretraining, rows_of, words

from sie_jax.report.sections import pretraining as section

LINES = [
    {"run": "pretrain-0", "step": 10, "loss": 9.0, "masked_loss": 8.0},
    {"run": "pretrain-0", "step": 20, "held_out_perplexity": 50.0},
    {"run": "uniform-0", "step": 10, "loss": 1.0},
]


def test_the_numbers_and_curves_of_pretraining():
    assert section.part(metrics(), LINES) is None
    part = section.part(metrics(pretraining=pretraining()), LINES)
    assert rows_of(part)[1:] == [
        ["perplexity", "1294.5000", "41.2500"],
        ["pair accuracy", "0.5000", "0.8750"],
    ]
    text = words(part.html)
    for shown in ("1,200 steps on 5,678 texts", "31.2 seconds", "64 of the 91 texts"):
        assert shown in text, shown
    assert part.html.count("<svg") == 2
    assert "loss of masked tokens" in text
    assert "held-out perplexity" in text
    assert "held-out pair accuracy" not in text  # no line has it
