"""What the pages show is what runs, and what they say was measured is what was committed."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sie_jax import config, importance
from sie_jax.importance import ESTIMATORS
from sie_jax.passes import estimating
from sie_jax.training.step_meter import StepMeter

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "per_example.md"
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """The names that all examples of the page leave behind, run one after the other."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    space: dict[str, Any] = {}
    for block in blocks:
        exec(block, space)
    return space


def gradients(loss_fn: Any, params: Any, *batch: Any) -> np.ndarray:
    """[B, parameters] by plain AD."""
    each = jax.vmap(jax.grad(loss_fn), in_axes=(None, 0, 0))(params, *batch)
    leaves = jax.tree.leaves(each)
    return np.concatenate([np.asarray(g).reshape(len(g), -1) for g in leaves], axis=1)


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.asarray(leaf).reshape(-1) for leaf in jax.tree.leaves(tree)])


# float32 sums of up to a few hundred terms in another order, relative to the largest entry
def assert_close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_five_lines(names: dict[str, Any]) -> None:
    matrix = gradients(names["loss_fn"], names["params"], *names["batch"])
    norms = np.linalg.norm(matrix, axis=1)
    assert_close(names["norms"], norms)
    assert_close(flat(names["update"]), (matrix / norms[:, None]).mean(0))


def test_bounded_memory(names: dict[str, Any]) -> None:
    matrix = gradients(names["loss_fn"], names["params"], *names["batch"])
    norms = np.linalg.norm(matrix, axis=1)
    weights = np.minimum(1, np.median(norms) / norms) / len(norms)
    assert_close(flat(names["bounded"]), weights @ matrix)


def test_bounded_memory_leaves_out_an_example_that_is_nan(names: dict[str, Any]) -> None:
    x, y = names["batch"]
    matrix = np.delete(gradients(names["loss_fn"], names["params"], x, y), 3, axis=0)
    norms = np.linalg.norm(matrix, axis=1)
    weights = np.minimum(1, np.median(norms) / norms) / len(y)
    total = names["bounded_step"](names["params"], x.at[3].set(jnp.nan), y)
    assert_close(flat(total), weights @ matrix)


def test_private_clipping(names: dict[str, Any]) -> None:
    matrix = gradients(names["linen_loss"], names["linen_params"], *names["batch"])
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    assert (norms > names["clip"]).any()
    assert_close(flat(names["clipped"]), (matrix * np.minimum(1, names["clip"] / norms)).sum(0))
    added = flat(names["private"]) * 32 - flat(names["clipped"])
    # the standard deviation of n normal draws is within 5 standard errors, 1/√(2n) each
    allowed = 5 / np.sqrt(2 * len(added))
    assert abs(added.std() / (names["noise_multiplier"] * names["clip"]) - 1) < allowed


def test_batch_by_gram_is_pivoted_cholesky(names: dict[str, Any]) -> None:
    matrix = gradients(names["equinox_loss"], names["arrays"], *names["batch"]).astype(np.float64)
    chosen = names["chosen"]
    assert len(set(chosen)) == len(chosen) == 8
    for count, best in enumerate(chosen):
        basis, _ = np.linalg.qr(matrix[chosen[:count]].T)
        left = np.linalg.norm(matrix - matrix @ basis @ basis.T, axis=1)
        assert left[best] >= left.max() * (1 - 1e-3)


def test_tracin(names: dict[str, Any]) -> None:
    matrix = gradients(names["nnx_loss"], names["nnx_params"], *names["batch"])
    assert_close(names["pairwise"], matrix[8:] @ matrix[:8].T)
    assert_close(names["influence"], matrix[8:] @ matrix[:8].mean(0))


def test_noise_scale(names: dict[str, Any]) -> None:
    matrix = gradients(names["loss_fn"], names["params"], *names["batch"]).astype(np.float64)
    trace = matrix.var(axis=0, ddof=1).sum()
    squared = (matrix.mean(0) ** 2).sum() - trace / len(matrix)
    # a difference of two numbers of like size loses digits
    np.testing.assert_allclose(names["noise_scale"], trace / squared, rtol=1e-2)


def test_adam_preconditioned_norms(names: dict[str, Any]) -> None:
    matrix = gradients(names["loss_fn"], names["params"], *names["batch"])
    assert_close(names["adam_norms"], np.linalg.norm(matrix / (0.1 + 1e-8), axis=1))


def test_the_group_as_the_example(names: dict[str, Any]) -> None:
    matrix = gradients(names["list_loss"], names["params"], *names["queries"])
    assert jnp.all(names["per_query"] > 0)
    assert_close(names["per_query"], np.linalg.norm(matrix, axis=1))


def test_measured_table_is_the_committed_result() -> None:
    text = PAGE.read_text(encoding="utf-8")
    report = json.loads((RESULTS / "per_example.json").read_text())
    rows = {
        cells[0]: cells[1:]
        for cells in (
            [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()
        )
    }
    settings = report["settings"].values()
    for variant in next(iter(settings)):
        ratios = [
            (found[variant]["time_ratio"], found[variant]["memory_ratio"]) for found in settings
        ]
        assert rows[variant] == [f"{time:.2f} / {memory:.2f}" for time, memory in ratios]
    sizes = report["largest_batch"]["batch_sizes"]
    for variant, size in sizes.items():
        assert f"{variant} {size}" in " ".join(text.split())
    machine = report["machine"]
    assert machine["cpu"] in text
    assert f"jax {machine['jax']}" in text


IMPORTANCE = (ROOT / "docs" / "importance.md").read_text(encoding="utf-8")
MEASURED = json.loads((RESULTS / "importance.json").read_text(encoding="utf-8"))["noise"]
FREE = {"outputs", "gradients", "history"}  # what every run's score pass and warm-up give


def table_rows(text: str, first: str) -> dict[str, list[str]]:
    """The cells of the table whose heading row begins with `first`, by the name in each row."""
    lines = text[text.index(f"\n| {first} |") :].split("\n\n")[0].split("<!--")[0].split("\n")
    cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): row[1:] for row in cells if row[0] and not row[0].startswith("-")}


def rows_below_the_heading(text: str, first: str) -> dict[str, list[str]]:
    return {name: row for name, row in table_rows(text, first).items() if name != first}


# of a pass over the training pairs; tests/passes/test_estimating.py holds the passes to them
PRICES = {"preconditioned": 3, "gradients": 3, "covariances": 3, "eigenvalues": 3, "embeddings": 1}


def test_the_table_of_estimators_is_the_registry() -> None:
    rows = rows_below_the_heading(IMPORTANCE, "name")
    assert list(rows) == list(importance.ESTIMATORS)
    for name, (_, high, needs, cost, _) in rows.items():
        estimator = importance.ESTIMATORS[name]
        assert (high, needs) == (estimator.high, estimator.needs)
        assert (cost == "folds") == (needs == "reference")
        for checkpoints in (1, 2):
            stated = 0
            for part in () if cost == "folds" else cost.split(" + "):
                stated += int(part.removesuffix(" C")) * (checkpoints if "C" in part else 1)
            entries = estimating.entries(name, checkpoints=checkpoints)
            of_training = [PRICES.get(entry.split("-")[0], 0) for entry in entries]
            assert stated == sum(of_training)


def test_the_table_of_policies_is_the_registry() -> None:
    assert list(rows_below_the_heading(IMPORTANCE, "policy")) == list(importance.POLICIES)


def test_every_flag_of_the_importance_page_is_a_field_and_its_commands_are_accepted() -> None:
    named = set(re.findall(r"--config\.([a-z_.]+)", IMPORTANCE))
    assert named <= set(config.flat(config.as_json(config.Config())))
    commands = re.findall(r"^python train.py (.*)$", IMPORTANCE, flags=re.MULTILINE)
    assert commands
    for command in commands:
        asked = config.Config()
        for field, value in re.findall(r"--config\.importance\.([a-z_]+)=(\S+)", command):
            kind = type(getattr(asked.importance, field))
            setattr(asked.importance, field, kind(value))
        asked.validate()


def test_the_library_example_of_the_importance_page() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", IMPORTANCE, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    matrix = gradients(names["loss_fn"], names["params"], names["x"], names["y"])
    helpful = 0.1 * matrix[:32] @ matrix[32:].mean(0)
    assert_close(names["helpful"], helpful)
    weights = np.where(np.argsort(np.argsort(helpful)) < 8, 0, 1 / 24)
    # one division in float32
    np.testing.assert_allclose(names["weights"], weights, rtol=1e-6)


def test_measured_tables_of_the_importance_page_are_the_committed_results() -> None:
    rows = rows_below_the_heading(IMPORTANCE, "score")
    kinds = [cell.strip("`") for cell in table_rows(IMPORTANCE, "score")["score"]]
    assert kinds == list(MEASURED)
    assert set(rows) == set(MEASURED["uniform"]["0.2"]["scores"])
    for name, cells in rows.items():
        assert cells == [f"{auroc(kind, name):.2f}" for kind in kinds]
    page = runpy.run_path(str(ROOT / "benchmarks" / "importance_page.py"))
    # of what `auto` chose too, and nothing was committed without being written into the page
    assert page["written"](IMPORTANCE) == IMPORTANCE
    picture = (ROOT / "docs" / "importance.svg").read_text(encoding="utf-8")
    drawn_from = json.loads((RESULTS / "importance.json").read_text(encoding="utf-8"))
    assert page["digest"](drawn_from) in picture


def auroc(kind: str, name: str, rate: str = "0.2") -> float:
    """The mean of the seeds that importance.json has."""
    return MEASURED[kind][rate]["scores"][name]["auroc"]["mean"]


def test_what_the_importance_page_says_is_seen_is_in_the_results() -> None:
    names = list(MEASURED["uniform"]["0.2"]["scores"])
    other_four = [kind for kind in MEASURED if kind != "missing_positive"]
    label_wise = ("uniform", "adjacent", "confusion")
    free = [n for n in importance.ESTIMATORS if importance.ESTIMATORS[n].needs in FREE]
    for kind in other_four:
        best = max(auroc(kind, name) for name in names)
        assert best == max(auroc(kind, name) for name in free)
        assert best - min(auroc(kind, "loss"), auroc(kind, "confidence")) < 0.05
        assert auroc(kind, "variability") < 0.5
    for kind in MEASURED:
        assert abs(auroc(kind, "loss, shuffled") - 0.5) < 0.05
        assert (auroc(kind, "entropy") < 0.7) == (kind != "annotator")
        assert auroc(kind, "out_of_fold_loss") < auroc(kind, "loss")
        cleanlab = auroc(kind, "cleanlab, normalized_margin")
        assert abs(auroc(kind, "confident_learning") - cleanlab) < 0.05
    for kind in ("uniform", "adjacent", "annotator"):
        assert all(abs(auroc(kind, name, "0") - 0.5) < 0.05 for name in names)
    for kind in label_wise:
        assert auroc(kind, "tracin") < 0.5
        assert abs(auroc(kind, "ekfac") - 0.5) < 0.1
        assert abs(auroc(kind, "reducible_loss") - 0.5) < 0.1
    assert all(auroc(kind, "gradient_similarity") < 0.5 for kind in ("uniform", "adjacent"))
    missing = sorted(names, key=lambda name: -auroc("missing_positive", name))
    assert missing[:2] == ["query_agreement", "grad_norm"]
    assert auroc("missing_positive", "loss", "0.05") > 0.9
    at_most = MEASURED["missing_positive"]["0.4"]["scores"]
    assert max(score["auroc"]["mean"] for score in at_most.values()) < 0.65
    mark = auroc("missing_positive", "tracin", "0")
    assert mark > 0.7
    assert auroc("missing_positive", "tracin") - mark < mark - 0.5
    spread = {
        kind: np.mean([np.ptp(rates["0.2"]["scores"][n]["auroc"]["seeds"]) for n in names])
        for kind, rates in MEASURED.items()
    }
    assert max(spread, key=spread.__getitem__) == "missing_positive"


def test_the_tables_of_what_auto_chooses() -> None:
    page = runpy.run_path(str(ROOT / "benchmarks" / "importance_page.py"))
    same = {"value": 0.0, "low": 0.0, "high": 0.0}
    runs = {
        "kept": {
            "seeds": [0, 1],
            "ndcg@10": [0.5, 0.6],
            "difference": {"value": -0.2, "low": -0.25, "high": 0.125},
        },
        "uniform": {"seeds": [0, 1], "ndcg@10": [0.7, 0.8], "difference": same},
    }
    choice = [{"name": "kept", "cost": 1.5}] * 2
    one = {"runs": runs, "chosen": {"choice": choice, "choice with the oracle": choice}}
    kept = {"seeds": [1], "ndcg@10": [0.5], "difference": None}
    other = {"runs": {"uniform": runs["uniform"], "kept": kept}, "chosen": {}}
    result = {"rates": {"0": one, "0.4": other}}
    assert table_rows("\n" + page["policies"](result), "run") == {
        "run": ["0% noise", "40% noise"],
        "uniform": ["0.750", "0.750"],
        "kept": ["0.550, −0.200 [−0.250, +0.125]", "0.500 (seeds 1)"],
    }
    assert page["choices"](result).splitlines()[2:] == [
        "| 0% | its own | kept 2 of 2 | 1.50 |",
        "| 0% | its own with the oracle | kept 2 of 2 | 1.50 |",
    ]


def test_what_the_importance_page_says_of_auto_is_in_the_results() -> None:
    found = json.loads((RESULTS / "choosing.json").read_text(encoding="utf-8"))
    said = IMPORTANCE.split("<!-- end choices -->")[1].split("\n## ")[0]
    text = f"{' '.join(IMPORTANCE.split('### Measured')[1].split('<!-- begin')[0].split())} {said}"
    assert f"shop of {found['queries']} queries" in text
    assert f"trained for {found['epochs']} epochs" in text
    rates = found["rates"]

    def compared(rate: str, run: str, metric: str = "ndcg@10") -> dict[str, Any]:
        found = rates[rate]["runs"][run]
        return found if metric == "ndcg@10" else found["by_accuracy"]

    def written(rate: str, run: str, metric: str = "ndcg@10") -> str:
        difference = compared(rate, run, metric)["difference"]
        numbers = (f"{difference[key]:+.3f}" for key in ("value", "low", "high"))
        return "{} [{}, {}]".format(*numbers).replace("-", "−")

    quoted = re.findall(r"[+−][\d.]+ \[[^]]+\]", said)
    assert quoted == [
        written("0", "auto", "accuracy"),
        written("0", "auto"),
        written("0.4", "clean labels"),
        written("0.4", "clean labels", "accuracy"),
        written("0.2", "clean labels"),
        written("0.2", "clean labels", "accuracy"),
    ]
    assert not compared("0", "auto")["difference"]["not_worse"]
    closed = [
        f"{compared(rate, 'auto', metric)['gap_closed']:.2f}"
        for rate, metric in (("0.4", "ndcg@10"), ("0.4", "accuracy"), ("0.2", "accuracy"))
    ]
    assert "closes {} and {} of that".format(*closed[:2]) in " ".join(said.split())
    assert f"of which it closes {closed[2]}" in said
    assert compared("0.2", "auto")["gap_closed"] is None
    own = [one for rate in rates.values() for one in rate["chosen"]["choice"]]
    for choices in (choice for rate in rates.values() for choice in rate["chosen"].values()):
        assert [one["seed"] for one in choices] == [0, 1, 2, 3, 4]
    assert sum(one["name"] == "uniform" for one in own) == 11
    assert sum(one["name"] != "uniform" for one in rates["0"]["chosen"]["choice"]) == 1
    assert sum(one["contender"] == "el2n keep 0.8" for one in own) == 11
    with_oracle = rates["0.4"]["chosen"]["choice with the oracle"]
    assert {one["name"] for one in with_oracle} == {"oracle keep 0.5"}
    tried = {
        (rate, name)
        for rate, of in rates.items()
        for name in of["runs"]
        if name not in {"uniform", "auto", "oracle", "clean labels"}
    }
    assert len(tried) == 3 * (9 + 2)
    assert all(len(rates[rate]["runs"][name]["seeds"]) == 5 for rate, name in tried)

    def beyond(metric: str, bound: str, sign: int) -> set[tuple[str, str]]:
        return {key for key in tried if sign * compared(*key, metric)["difference"][bound] > 0}

    assert not beyond("ndcg@10", "low", 1)
    gaining = ("loss tempered -0.5", "margin keep 0.6", "loss inverse")
    assert beyond("accuracy", "low", 1) == {("0.2", name) for name in gaining}
    gains = [compared("0.2", name, "accuracy")["difference"]["value"] for name in gaining]
    clean = compared("0.2", "clean labels", "accuracy")["difference"]["value"]
    assert gains[0] > clean > gains[1] > gains[2]
    losing = {"grad_norm ranked", "grad_norm proportional", "el2n keep_hardest 0.8", "loss banded"}
    for metric in ("ndcg@10", "accuracy"):
        below = beyond(metric, "high", -1)
        assert {(rate, name) for rate in ("0.2", "0.4") for name in losing} <= below
        for name in ("grad_norm ranked", "el2n keep_hardest 0.8"):
            lost = [compared(rate, name, metric)["difference"]["value"] for rate in rates]
            assert lost == sorted(lost, reverse=True)
    assert sum(one["name"] == "el2n keep 0.8" for one in own) == 2
    assert {(rate, "grad_norm sampling") for rate in rates} <= beyond("accuracy", "high", -1)
    above = [
        sum(one[metric]["low"] > 0 for one in rates["0.4"]["yardsticks"])
        for metric in ("accuracy", "ndcg@10")
    ]
    assert above == [3, 0]


def test_what_the_importance_page_says_of_other_seeds_is_in_the_results() -> None:
    assert "keeps `uniform` in 12 of 15 shops, in all five at 0 %" in IMPORTANCE
    found = json.loads((RESULTS / "choosing_other_seeds.json").read_text(encoding="utf-8"))
    known = json.loads((RESULTS / "choosing.json").read_text(encoding="utf-8"))
    assert [found[key] for key in ("queries", "epochs", "margin")] == [600, 8, 0.005]
    kept = {}
    for rate, one in found["rates"].items():
        assert not set(one["runs"]["uniform"]["seeds"]) & set(
            known["rates"][rate]["runs"]["uniform"]["seeds"]
        )
        kept[rate] = [choice["name"] == "uniform" for choice in one["chosen"]["choice"]]
        difference = one["runs"]["auto"]["difference"]
        assert difference["not_worse"]
        assert difference["low"] <= 0
    assert (sum(kept["0"]), sum(map(sum, kept.values())), sum(map(len, kept.values()))) == (
        5,
        12,
        15,
    )
    with_oracle = found["rates"]["0.4"]["chosen"]["choice with the oracle"]
    assert [one["name"] for one in with_oracle] == 5 * ["oracle keep 0.5"]


def test_what_the_importance_page_says_of_sampling_is_in_the_results() -> None:
    found = json.loads((RESULTS / "sampling.json").read_text(encoding="utf-8"))
    text = " ".join(IMPORTANCE.split("## Sampling")[1].split("\n## ")[0].split())
    assert f"{found['pairs']} pairs" in text
    assert f"mean of {found['draws']:,} draws" in text
    assert found["uniform_share"] == 0.1
    drawing = found["drawing"]
    uniform = drawing["uniform"]["variance_observed"]
    by_norm, by_root = (drawing[name]["variance_observed"] for name in ("norm", "norm^0.5"))
    assert f"has {by_norm / uniform:.2f} of the variance" in text
    assert f"square root {by_root / uniform:.2f}." in text
    for name in ("norm", "norm^0.5"):
        ratio, error = (drawing[name][f"squared_distance_ratio{end}"] for end in ("", "_error"))
        assert f"{ratio:.2f} ± {error:.2f}" == "0.99 ± 0.01"
    assert "0.99 ± 0.01 of the squared distance" in text


def test_what_the_importance_page_says_of_real_pairs_is_in_the_results() -> None:
    found = json.loads((RESULTS / "importance_real.json").read_text(encoding="utf-8"))
    text = IMPORTANCE.split("### Real pairs")[1]
    esci, icecat = found["esci"], found["icecat"]
    assert f"{esci['pairs']:,} training pairs" in text
    assert f"{icecat['pairs']:,} training pairs" in text
    assert f"on {icecat['disagreed']} of which" in text.replace("\n", " ")
    assert f"{found['noise']:.0%} of its training labels".replace("%", " %") in text
    area = {name: score["auroc"] for name, score in esci["scores"].items()}
    best = sorted(area, key=lambda name: -area[name]["value"])
    assert best[:3] == ["confidence", "area_under_margin", "loss"]
    assert f"{area['grad_norm']['value']:.2f}" == "0.76"
    outside = [name for name in area if name.startswith("cleanlab")]
    values = [area[name]["value"] for name in (*outside, "out_of_fold_loss", "confident_learning")]
    assert [f"{bound:.2f}" for bound in (min(values), max(values))] == ["0.72", "0.75"]
    wrong_way = {name for name in area if area[name]["high"] < 0.5}
    assert wrong_way == {"reducible_loss", "variability"}
    rho = icecat["scores"]
    assert max(rho, key=lambda name: rho[name]["value"]) == "query_agreement"
    assert {name for name in rho if rho[name]["low"] <= 0} == {"variability", "loss, shuffled"}


@pytest.mark.parametrize("file", ["README.md", "README.zh.md"])
def test_what_the_readme_says_of_importance_is_in_the_results(file: str) -> None:
    section = (ROOT / file).read_text(encoding="utf-8").split("\n## ")
    (text,) = [part for part in section if "(docs/importance.md)" in part.split("\n\n")[1]]
    further = len(importance.ESTIMATORS) - len(importance.SCORES)
    expected = [
        f"{further}",
        "20",
        f"{auroc('uniform', 'loss'):.2f}",
        f"{auroc('uniform', 'confidence'):.2f}",
        f"{auroc('missing_positive', 'loss'):.2f}",
        f"{auroc('missing_positive', 'query_agreement'):.2f}",
    ]
    assert re.findall(r"(?<![\w.])\d[\d.]*\d", text) == expected


def cost_row(report: Any, name: str) -> list[str]:
    """The cells after the estimator's name: its passes, a ratio for each model, the host's work."""
    needs = report["needs"][name]
    passes = ", ".join(needs["training"]) or "none"
    if needs["targets"]:
        passes += f"; validation: {', '.join(needs['targets'])}"
    if needs["checkpoints"] == "every":
        passes += "; every checkpoint"
    cells = [passes]
    for model in report["models"].values():
        found = model["estimators"][name]
        ratio = f"{found['training']['ratio']:.2f}" if needs["training"] else "0"
        if needs["targets"]:
            ratio += f" + {found['targets']['ratio']:.2f} v"
        if needs["trainings"] != "0":
            ratio += f" + {needs['trainings']} trainings"
        cells.append(ratio)
    if name not in report["host"]:
        return [*cells, ""]
    host = report["host"][name]
    rows, seconds = next(iter(host["seconds"].items()))
    power = f", N^{host['exponent']:.1f}" if "exponent" in host else ""
    return [*cells, f"{seconds:.2g} s for {int(rows):,}{power}"]


def test_cost_table_is_the_committed_result() -> None:
    text = (ROOT / "docs" / "estimator_costs.md").read_text(encoding="utf-8")
    report = json.loads((ROOT / "benchmarks" / "results" / "estimators.json").read_text())
    rows = {
        cells[0].strip("`"): cells[1:]
        for cells in (
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in text.splitlines()
            if line.startswith("| `")
        )
    }
    assert rows == {name: cost_row(report, name) for name in ESTIMATORS}
    shared = [
        f"{model['passes']['norms, dots and projections']['ratio']:.2f}"
        for model in report["models"].values()
    ]
    assert " and ".join(shared) in text
    machine = report["machine"]
    assert f"{machine['cores']} cores of an {machine['cpu']}" in text
    assert f"jax {machine['jax']}" in text
    assert ("busy" in text) == report["busy"]


OBSERVING = (ROOT / "docs" / "observing.md").read_text(encoding="utf-8")


def test_the_numbers_of_the_observing_page_are_those_of_a_run() -> None:
    meter = StepMeter(1.0, jax.local_devices())
    meter.step(rows=1, tokens=1, slots=1, flops=1)
    memory = {"peak_memory_bytes", "peak_host_memory_bytes"}  # the one or the other
    assert set(rows_below_the_heading(OBSERVING, "number")) == set(meter.interval()) | memory


def test_the_example_of_the_observing_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", OBSERVING, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["numbers"]["padding_share"] == 1 - 50 / 64
    assert len(list(tmp_path.glob("profile/plugins/profile/*/perfetto_trace.json.gz"))) == 1


DEVICES = (ROOT / "docs" / "many_devices.md").read_text(encoding="utf-8")


def test_what_a_step_computes_and_sends_is_the_committed_result() -> None:
    report = json.loads((RESULTS / "devices.json").read_text(encoding="utf-8"))
    table = rows_below_the_heading(DEVICES, "mesh")
    assert set(table) == set(report["meshes"])
    reduce, gather = "all-reduce", "all-gather"
    for mesh, of in report["meshes"].items():
        steps = [of["uniform"], of["online"]]
        sent = [step["collectives"] for step in steps]
        expected = [
            [f"{step['flops_per_device'] / 1e9:.1f}" for step in steps],
            [f"{steps[0]['state_bytes_per_device'] / 1e6:.1f}"],
            *(
                [
                    f"{one[kind]['count']}, {one[kind]['bytes'] / 1e6:.1f}"
                    for one in sent
                    if kind in one
                ]
                for kind in (reduce, gather)
            ),
            [
                f"{sum(one[kind]['bytes'] for kind in one.keys() - {reduce, gather}) / 1e6:.1f}"
                for one in sent
                if one.keys() - {reduce, gather}
            ],
        ]
        assert table[mesh] == [" → ".join(cells) or "0" for cells in expected], mesh
    paper = report["v5e_256_on_paper"]
    for written in (
        f"{paper['flops_per_device'] / 1e9:.0f} GFLOPs per device",
        f"{paper['seconds_at_peak_flops'] * 1e3:.2f} ms at its peak",
        f"{paper['bytes_sent_per_device'] / 1e6:.0f} MB sent per device",
        f"{paper['seconds_at_peak_link'] * 1e3:.2f} ms at the links",
        f"scoring adds {paper['bytes_added_by_scoring'] / 1e6:.2f} MB",
    ):
        assert written in " ".join(DEVICES.split()), written


def test_what_twenty_kills_left_is_the_committed_result() -> None:
    report = json.loads((RESULTS / "kill.json").read_text(encoding="utf-8"))
    kills = report["kills"]
    assert {kill["phase"] for kill in kills} == set(report["phase_seconds"])
    assert not any(kill["finished_files_gone"] for kill in kills)
    assert all(report["equal"].values())
    half_written = sum(kill["checkpoint_half_written"] for kill in kills)
    said = " ".join(DEVICES.split())
    assert f"kill.py --seed={report['seed']}` killed one run {len(kills)} times" in said
    assert f"{half_written} times while a checkpoint was half written" in said
    assert f"at most {report['most_steps_to_take_again']} steps were taken again" in said


def test_the_table_of_what_preparing_takes_is_the_committed_result() -> None:
    report = json.loads((RESULTS / "data.json").read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "preparing.md").read_text(encoding="utf-8")
    small, large = report["100000 pairs"], report["1000000 pairs"]

    def grown(step: str, kind: str) -> list[str]:
        first, second = (f"{of[step][f'{kind}_mebibytes']:.0f} MiB" for of in (small, large))
        return [first, f"{second}, {report[f'{kind}_ratio'][step]:.2f} times as much"]

    def per_second(step: str) -> list[str]:
        return [f"{of[step]['pairs_per_second']:,}" for of in (small, large)]

    table = text.split("## What it takes")[1]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")][1:]
        for line in table.splitlines()
        if line.startswith("|")
    ]
    assert rows[2:] == [
        [f"{of['prepare']['seconds']:.0f} s" for of in (small, large)],
        grown("prepare", "peak"),
        grown("prepare", "peak_own"),
        per_second("tokenise"),
        per_second("stream"),
        grown("stream", "peak"),
    ]
    waits = {name: f"{of['data_wait_share']:.3%}" for name, of in report["training"].items()}
    said = " ".join(text.split())
    assert f"MiniLM-L6 waits {waits['minilm']} for data" in said
    assert f"the quickstart's model {waits['quickstart']}; below 2 % is aimed at" in said
    assert all(of["data_wait_share"] < 0.02 for of in report["training"].values())
