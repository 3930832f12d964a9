"""Replay: what the rows of a kept batch do at a run's newest checkpoint."""

import io
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from compiling import quickly
from rich.console import Console
from tiny_runs import opened, pair_runs, run, tiny, unexplained

from sie_jax.data import preparing, tokenization
from sie_jax.errors import NumericalError, UserError
from sie_jax.models import PairClassifier
from sie_jax.recipes.replay import replay
from sie_jax.training import learning

pytestmark = pytest.mark.slow


def kept(workdir: Path, run_name: str, batch: dict[str, np.ndarray]) -> Path:
    """The file that a run leaves when its loss is not finite."""
    file = workdir / "replay" / f"{run_name}-9-0.npz"
    file.parent.mkdir(exist_ok=True)
    arrays: dict[str, Any] = {"run": run_name, "step": 9, **batch}
    np.savez(file, **arrays)
    return file


def batches(workdir: Path, *, learned: bool) -> Any:
    """The batches of a run over the training pairs."""
    with opened(tiny(), workdir) as (folder, start):
        planner = pair_runs(folder, start).planner
        planned = planner.epochs(1, seed=0)
        if learned:
            return learning.WithValidation(planned, planner.in_one_length("validation"))
        return planned


def losses(workdir: Path, rows: np.ndarray) -> np.ndarray:
    """The losses of training pairs by the model of weighted-0, without anything of the stages."""
    pairs = preparing.load(workdir).split("train").take(rows)
    model, _ = PairClassifier.from_pretrained(workdir / "models" / "weighted-0")
    inputs = tokenization.load(workdir / "models" / "weighted-0")(
        pairs["query"].to_pylist(),
        pairs["title"].to_pylist(),
        truncation=True,  # the folder says where
        padding=True,
        return_tensors="np",
    )
    logits = model(inputs["input_ids"], inputs["token_type_ids"], inputs["attention_mask"])
    logs = np.asarray(jax.nn.log_softmax(logits))
    return -logs[np.arange(len(rows)), pairs["label"].to_numpy()]


def told(file: Path) -> tuple[Any, str]:
    """The table of a replay, and what it prints."""
    out = io.StringIO()
    with quickly():
        return replay(file, Console(file=out, width=10_000)), out.getvalue()


@pytest.mark.parametrize("kind", ["weights", "learned"])
def test_losses_are_those_of_the_newest_checkpoint(
    finished: Path, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = finished if kind == "weights" else request.getfixturevalue("learned")
    workdir = Path(shutil.copytree(source, tmp_path / "run"))
    planned = batches(workdir, learned=kind == "learned")
    last = planned[len(planned) - 1]
    table, out = told(kept(workdir, "weighted-0", last))
    assert table.column_names == ["example_id", "query", "title", "label", "loss", "grad_norm"]
    rows = last["row"][last["mask"]]
    training = preparing.load(workdir).split("train")
    ids = training["example_id"].to_numpy()
    assert set(table["example_id"].to_pylist()) == set(ids[rows])
    assert table.num_rows == len(rows)
    by_id = dict(zip(ids[rows], losses(workdir, rows), strict=True))
    wanted = [by_id[one] for one in table["example_id"].to_pylist()]
    np.testing.assert_allclose(table["loss"].to_numpy(), wanted, rtol=1e-4, atol=1e-5)
    norms = table["grad_norm"].to_numpy()
    assert norms.tolist() == sorted(norms, reverse=True)
    assert set(table["label"].to_pylist()) <= set("ICSE")
    said = "run weighted-0, the batch of step 9, at the parameters after step 7: 0 of"
    assert f"{said} {len(rows)} rows are not finite" in out


def test_a_uniform_run_is_replayed_without_its_checkpoints_from_its_first_step(
    finished: Path, tmp_path: Path
) -> None:
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))
    planned = batches(workdir, learned=False)
    file = kept(workdir, "uniform-0", planned[0])
    trained, out = told(file)
    assert "at the parameters after step 7" in out
    shutil.rmtree(workdir / "checkpoints" / "uniform-0" / "steps")
    begun, out = told(file)
    assert "at the parameters after step 0" in out
    # nothing is learned yet about four classes
    assert begun["loss"].to_numpy().mean() == pytest.approx(np.log(4), abs=0.5)
    assert not np.allclose(np.sort(begun["loss"]), np.sort(trained["loss"]), atol=1e-3)


def test_a_pretraining_run_is_not_supported(tmp_path: Path) -> None:
    config = unexplained()
    config.pretrain.steps, config.pretrain.evaluate_every = 4, 4
    config.pretrain.batch_size, config.pretrain.learning_rate = 16, 1e30
    config.train.warmup_fraction = 0.0
    with pytest.raises(NumericalError, match=r"run pretrain-0: .*lower pretrain\.learning_rate"):
        run(config, tmp_path)
    (file,) = (tmp_path / "replay").iterdir()
    with pytest.raises(UserError, match=f"^--replay={file}: .*does not support pretraining runs"):
        told(file)


def test_files_that_no_failed_run_left_are_refused(finished: Path, tmp_path: Path) -> None:
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))
    planned = batches(workdir, learned=False)
    file = kept(workdir, "uniform-0", planned[0])
    for other in (tmp_path / "none.npz", workdir / "replay" / "none.npz", finished / "config.json"):
        with pytest.raises(UserError, match=f"^--replay={other}: give a file that a failed run"):
            told(other)
    for content in (b"", b"PK", file.read_bytes()[:100]):
        broken = workdir / "replay" / "broken.npz"
        broken.write_bytes(content)
        with pytest.raises(UserError, match=f"^--replay={broken}: the file cannot be read") as it:
            told(broken)
        assert "\n" not in str(it.value)
    np.savez(broken, row=np.arange(3))
    with pytest.raises(UserError, match="the file cannot be read"):
        told(broken)
    (workdir / "checkpoints" / "uniform-0" / "run.json").unlink()
    with pytest.raises(UserError, match=r"uniform-0/run\.json is damaged"):
        told(file)
    (workdir / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        told(file)
