from report.examples import metrics, rows_of, words

from sie_jax.report.sections import results


def test_metrics_differences_and_seeds():
    part = results.part(metrics())
    rows = rows_of(part)
    # Runs that were trained stand before the baseline.
    assert rows[0] == ["metric", "uniform", "weighted", "random"]
    tested = ["0.80950.7995 to 0.8195", "0.84020.8302 to 0.8502", "0.40000.3900 to 0.4100"]
    assert ["ndcg@10", *tested] in rows
    differences = ["+0.0307+0.0207 to +0.0407", "−0.4095−0.4195 to −0.3995"]
    assert ["ndcg@10", *differences] in rows
    by_label = ["0.61000.6000 to 0.6200", "–no interval", "0.11000.1000 to 0.1200"]
    assert ["recall_exact", *by_label] in rows
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
