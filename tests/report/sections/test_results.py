from report.examples import metrics, rows_of, words

from sie_jax.data.schema import ESCI_SCALE, LabelScale
from sie_jax.report.sections import results


def test_metrics_differences_and_seeds():
    part = results.part(metrics())
    rows = rows_of(part)
    assert rows[:4] == [
        ["run", "ndcg@10"],
        # Runs that were trained stand before the baseline.
        ["uniform", "0.80950.7995 to 0.8195"],
        ["weighted", "0.84020.8302 to 0.8502"],
        ["random", "0.40000.3900 to 0.4100"],
    ]
    assert ["weighted", "+0.0307+0.0207 to +0.0407"] in rows
    assert ["random", "−0.4095−0.4195 to −0.3995"] in rows
    place = rows.index(["run", "recall_exact"])
    assert rows[place + 1 : place + 4] == [
        ["uniform", "0.61000.6000 to 0.6200"],
        ["weighted", "–no interval"],
        ["random", "0.11000.1000 to 0.1200"],
    ]
    assert ["uniform", "2", "0.8167"] in rows
    text = words(part.html)
    assert "nDCG is measured on 41 queries and leaves out 3 without a positive gain." in text
    assert "leave out 2 more without an item of the highest grade" in text
    assert "weighted minus uniform" in text
    assert part.html.count("<svg") == 1


def test_the_plot_is_of_the_run_asked_for():
    assert "random minus uniform" in results.part(metrics(), run="random").html
    of_run = metrics()
    del of_run["difference"]["weighted"]
    html = results.part(of_run).html
    assert "<svg" not in html
    assert "Differences from uniform" in html  # of the baseline


def test_what_is_not_there_is_not_shown():
    of_run = metrics()
    del of_run["queries"]
    of_run["difference"] = {}
    for values in of_run["test"].values():
        del values["recall_exact"]
    html = results.part(of_run).html
    assert "There is no other run to compare with uniform." in html
    for absent in ("<svg", "nDCG is measured", "Precision and recall"):
        assert absent not in html


def test_a_run_without_a_metric_of_a_label_is_not_in_their_table():
    of_run = metrics()
    del of_run["test"]["random"]["recall_exact"]
    rows = rows_of(results.part(of_run))
    place = rows.index(["run", "recall_exact"])
    assert [row[0] for row in rows[place + 1 : place + 3]] == ["uniform", "weighted"]
    assert rows[place + 3][0] == "run"  # of the next table


def test_the_label_scale_says_what_each_label_is_worth_and_means():
    rows = rows_of(results.part(metrics(), ESCI_SCALE))
    place = rows.index(["label", "grade", "gain", "meaning"])
    assert rows[place + 1 : place + 5] == [
        ["E", "3", "1", "exact"],
        ["S", "2", "0.1", "substitute"],
        ["C", "1", "0.01", "complement"],
        ["I", "0", "0", "irrelevant"],
    ]
    own = rows_of(results.part(metrics(), LabelScale(("no", "yes"), (0.0, 0.5))))
    place = own.index(["label", "grade", "gain"])
    assert own[place + 1 : place + 3] == [["yes", "1", "0.5"], ["no", "0", "0"]]
    assert "What the labels mean" not in results.part(metrics()).html
