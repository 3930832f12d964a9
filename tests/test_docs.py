"""What the pages show is what runs, and their generated parts are what the results give."""

import importlib
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sie_jax import per_example, sections
from sie_jax.commands import flags
from sie_jax.config import as_json
from sie_jax.training.step_meter import StepMeter

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "per_example.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """benchmarks/pages.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("pages")


def test_the_generated_parts_are_what_the_script_writes(script: ModuleType) -> None:
    outdated = {page.name: parts for page, _, parts in script.outdated()}
    assert outdated == {}, "run python benchmarks/pages.py"
    assert not any(one.outdated() for one in script.PICTURES), "run python benchmarks/pages.py"


def test_every_part_that_the_script_makes_stands_on_a_page(script: ModuleType) -> None:
    placed = [name for page in script.pages() for name in script.names(page.read_text("utf-8"))]
    made = {name for name in script.PARTS if not name.startswith("measured by ")}
    assert made <= set(placed)


def test_a_part_is_written_between_its_markers_and_nothing_else_changes(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(script.PARTS, "one", lambda: "new")
    page = "a\n<!-- generated: one -->\nold\nlines\n<!-- end -->\nb <!-- end -->\n"
    assert script.written(page) == (
        "a\n<!-- generated: one -->\nnew\n<!-- end -->\nb <!-- end -->\n"
    )
    with pytest.raises(KeyError):
        script.written("<!-- generated: unknown -->\n<!-- end -->")


def test_the_tables_of_what_auto_chooses(script: ModuleType) -> None:
    none = {"value": 0.0, "low": 0.0, "high": 0.0}
    gain = {"value": -0.2, "low": -0.25, "high": 0.125}
    one = {
        "contenders": {"kept": 2},
        "chosen": {"uniform": 1, "kept": 1},
        "gain": gain,
        "spent": 1.5,
        "trials": 2,
        "bias": none,
    }
    faults = {"none": one, "confusion": one | {"headroom": gain}}
    rates = {"none": 0.0, "confusion": 0.2}
    result = {"faults": faults, "rates": rates, "trials": 4, "bias": gain}
    shown = "−0.200 [−0.250, +0.125]"
    assert script.importance_page.choices(result).splitlines()[2:] == [
        f"| none | 2 × kept | 1 × uniform, 1 × kept | {shown} |  | 1.50 |",
        f"| confusion, 20% | 2 × kept | 1 × uniform, 1 × kept | {shown} | {shown} | 1.50 |",
    ]
    assert script.importance_page.bias(result).splitlines()[3:] == [
        "| confusion | 2 | +0.000 [+0.000, +0.000] |",
        f"| all | 4 | {shown} |",
    ]


def test_the_hooks_check_what_ci_checks() -> None:
    hooks = re.findall(r"entry: (.*)", (ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    checks = re.findall(
        r"^\.venv/bin/(?:ruff|mypy).*$", (ROOT / ".ci/run").read_text("utf-8"), re.M
    )
    assert checks
    assert hooks == checks


def anchors(page: Path) -> set[str]:
    """The headings of a page as links to them are written."""
    titles = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(page: Path) -> set[str]:
    """What a page or a notebook links to, of this repository."""
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
    return {target for target in targets if not target.startswith(("http:", "https:"))}


@pytest.mark.parametrize(
    "page", [*PAGES, *sorted((ROOT / "docs").glob("*.ipynb"))], ids=lambda page: page.name
)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = Path(os.path.normpath(page.parent / path)) if path else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, todo = set[Path](), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page not in seen:
            seen.add(page)
            paths = {link.partition("#")[0] for link in links(page)} - {""}
            todo += [
                Path(os.path.normpath(page.parent / path)) for path in paths if path[-3:] == ".md"
            ]
    assert set(PAGES) <= seen


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
    each = jax.vmap(jax.grad(loss_fn), in_axes=(None, *(0 for _ in batch)))(params, *batch)
    leaves = jax.tree.leaves(each)
    return np.concatenate([np.asarray(g).reshape(len(g), -1) for g in leaves], axis=1)


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.asarray(leaf).reshape(-1) for leaf in jax.tree.leaves(tree)])


# float32 sums of up to a few hundred terms in another order, relative to the largest entry
def assert_close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_contributions_under_a_coupled_loss(names: dict[str, Any]) -> None:
    params, (x, _), rest, relevant = (
        names[name] for name in ("params", "batch", "rest", "relevant")
    )

    def coupled(scores: jax.Array) -> jax.Array:
        return names["softmax_over_lists"](scores, rest, relevant)

    held = jax.grad(coupled)(jax.vmap(names["score"], in_axes=(None, 0))(params, x))
    matrix = gradients(lambda params, x, held: held * names["score"](params, x), params, x, held)
    norms, lists = np.linalg.norm(matrix, axis=1), matrix.reshape(8, 4, -1).sum(1)
    assert_close(names["pairs"], norms)
    assert_close(names["of_lists"], np.linalg.norm(lists, axis=1))
    assert_close(names["agreement"], np.sum(matrix * np.repeat(lists, 4, axis=0), axis=1))
    assert_close(flat(names["by_pair"]), norms / norms.sum() @ matrix)
    weights = np.linalg.norm(lists, axis=1) / np.linalg.norm(lists, axis=1).sum()
    assert_close(flat(names["by_list"]), weights @ lists)


def test_five_lines(names: dict[str, Any]) -> None:
    matrix = gradients(names["loss_fn"], names["params"], *names["batch"])
    norms = np.linalg.norm(matrix, axis=1)
    assert_close(names["norms"], norms)
    assert_close(flat(names["update"]), (matrix / norms[:, None]).mean(0))


def test_the_printed_explanation(names: dict[str, Any]) -> None:
    explained = per_example.explain(names["loss_fn"], names["params"], *names["batch"])
    assert f"```text\n{explained}\n```" in PAGE.read_text("utf-8")


def test_a_module_with_dropout(names: dict[str, Any]) -> None:
    batch = *names["batch"], names["dropout_keys"]
    matrix = gradients(names["dropout_loss"], names["network_params"], *batch)
    assert_close(names["with_dropout"], np.linalg.norm(matrix, axis=1))


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


IMPORTANCE = (ROOT / "docs" / "importance.md").read_text(encoding="utf-8")


def table_rows(text: str, first: str) -> dict[str, list[str]]:
    """The cells of the table whose heading row begins with `first`, by the name in each row."""
    lines = text[text.index(f"\n| {first} |") :].split("\n\n")[0].split("\n")
    cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): row[1:] for row in cells if row[0] and not row[0].startswith("-")}


def rows_below_the_heading(text: str, first: str) -> dict[str, list[str]]:
    return {name: row for name, row in table_rows(text, first).items() if name != first}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_flag_is_a_field(page: Path) -> None:
    named = set(re.findall(r"--config\.([a-z_.]*[a-z_])(?![a-z_.]*[*<])", page.read_text("utf-8")))
    known = set().union(*(sections.flat(as_json(kind())) for kind in flags.CONFIGS))
    assert named <= known


def test_every_config_that_the_importance_page_asks_for_is_accepted() -> None:
    commands = re.findall(r"^python train.py (.*)$", IMPORTANCE, flags=re.MULTILINE)
    assert commands
    for command in commands:
        flags.parse(["train.py", *shlex.split(command)]).config.check()


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
