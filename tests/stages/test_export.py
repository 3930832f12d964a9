"""Export: whatever wins the contest, the folder alone gives the scores that the run measured."""

from collections import Counter
from pathlib import Path

import checkpoints
import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_runs

from sie_jax import serving
from sie_jax.commands import predict
from sie_jax.config import Config
from sie_jax.data import preparing
from sie_jax.data.schema import ATTRIBUTE
from sie_jax.data.sources.market import MarketConfig
from sie_jax.files import read_json
from sie_jax.models.ranker import Ranker

pytestmark = pytest.mark.slow

KINDS = (
    "linear",
    "trees",
    "blend",
    "translation",
    "stack",
    "uniform",
    "weighted",
    "token_overlap",
    "bm25",
    "checkpoint",
    "checkpoint_text",
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Of a run that starts from a checkpoint, so that there is a cosine, on items of all kinds."""
    folder = tmp_path_factory.mktemp("bert")
    # weights so large that the scores of a query differ by much more than float32's rounding, which
    # is magnified where they are scaled to a variance of 1
    texts = ["red blue lamp shoe table chair", "led usb"]
    checkpoints.write(folder, texts, num_labels=4, initializer_range=0.5)
    made = tiny_runs.unexplained()
    made.model.pretrained = str(folder)
    made.data.source = "market"  # its items have attributes and further texts
    made.data.market = MarketConfig(queries=30, items=200, candidates=6, dirt=0.1)
    return made


@pytest.fixture(scope="module")
def run(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("exported") / "run"
    tiny_runs.run(config, workdir)
    return workdir


@pytest.mark.parametrize("winner", KINDS)
def test_the_folder_alone_gives_the_scores_of_the_run(
    winner: str, run: Path, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = tmp_path / "run"
    metrics = tiny_runs.won_by(winner, run, config, workdir)
    assert metrics["verdict"]["ranker"] == winner
    test = preparing.load(workdir).split("test")
    table = test.rename_columns([name.removeprefix(ATTRIBUTE) for name in test.column_names])
    pq.write_table(table, tmp_path / "pairs.parquet")
    # the folder is taken elsewhere, and parts are smaller than a query
    (workdir / "model").rename(tmp_path / "model")
    monkeypatch.setattr(serving.table, "PART_ROWS", 5)
    flags = [f"--{name}={name}" for name in ("text", "example_id", "query_id", "item_id")]
    code = predict.entry(
        [
            "predict",
            f"--model={tmp_path / 'model'}",
            f"--input={tmp_path / 'pairs.parquet'}",
            f"--output={tmp_path / 'scored.parquet'}",
            *flags,
        ]
    )
    assert code == 0
    scored = pq.read_table(tmp_path / "scored.parquet")
    wanted = pq.read_table(workdir / "rankings.parquet")
    assert scored["example_id"].to_pylist() == wanted["example_id"].to_pylist()
    # float32 sums in batches of another size
    np.testing.assert_allclose(
        scored["score"].to_numpy(), wanted[f"{winner}-0"].to_numpy(), rtol=1e-6, atol=1e-6
    )
    with_classes = winner in ("uniform", "weighted", "stack")
    assert ("prediction" in scored.column_names) == with_classes


def test_without_its_attributes_items_are_ranked_as_unknown_and_it_is_said(
    run: Path, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_runs.won_by("linear", run, config, tmp_path / "run")
    model = tmp_path / "run" / "model"
    test = preparing.load(tmp_path / "run").split("test")
    names = [name for name in test.column_names if name.startswith(ATTRIBUTE)]
    texts = test.select(["query", "title", "text", "example_id", "query_id"])
    pq.write_table(texts, tmp_path / "pairs.parquet")
    flags = [f"--{name}={name}" for name in ("text", "example_id", "query_id")]
    argv = ["predict", f"--model={model}", f"--input={tmp_path / 'pairs.parquet'}", *flags]
    assert predict.entry([*argv, f"--output={tmp_path / 'out.parquet'}"]) == 0
    listed = ", ".join(sorted(name.removeprefix(ATTRIBUTE) for name in names))
    assert f"has no column {listed}, by which" in capsys.readouterr().err
    scored = pq.read_table(tmp_path / "out.parquet")["score"].to_numpy()
    rows = [{**row, **dict.fromkeys(names, "")} for row in texts.to_pylist()]
    wanted = serving.score(serving.load(model), rows)["score"].to_numpy()
    np.testing.assert_allclose(scored, wanted, rtol=1e-12)


def test_the_encoder_alone_can_be_asked(run: Path, config: Config, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    tiny_runs.won_by("linear", run, config, workdir)
    ranker = Ranker.load(workdir / "model")
    queries = preparing.load(workdir).split("train")["query_id"].to_pylist()
    lengths = sorted(Counter(queries).values())
    assert ranker.list_lengths["median"] == lengths[(len(lengths) - 1) // 2]
    assert ranker.list_lengths["low"] == lengths[int(0.05 * (len(lengths) - 1))]
    encoder = ranker.run
    test = preparing.load(workdir).split("test")
    scorer = serving.load(workdir / "model", encoder_alone=True)
    scored = serving.score(scorer, test.to_pylist(), batch_size=16)
    wanted = pq.read_table(workdir / "rankings.parquet")[f"{encoder}-0"]
    np.testing.assert_allclose(scored["score"].to_numpy(), wanted.to_numpy(), rtol=1e-6, atol=1e-6)


def test_the_card_says_whether_the_orders_agree(run: Path, config: Config, tmp_path: Path) -> None:
    for winner, told in (("linear", "which is another order: "), ("uniform", "the same order.")):
        tiny_runs.won_by(winner, run, config, tmp_path / winner)
        model = tmp_path / winner / "model"
        assert told in (model / "README.md").read_text(encoding="utf-8")
        files = [path for path in model.rglob("*") if path.is_file()]
        assert {path.stat().st_mode & 0o777 for path in files} == {0o644}
        here = str(tmp_path.parent).encode()
        assert [path.name for path in files if here in path.read_bytes()] == []


def test_a_model_without_its_parts_gets_one_line(
    run: Path, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_runs.won_by("stack", run, config, tmp_path / "run")
    model = tmp_path / "run" / "model"
    (tmp_path / "pairs.csv").write_text("query,title\nred lamp,lamp\n")
    wanted = read_json(model / "ranker.json")

    def refused() -> str:
        argv = ["predict", f"--model={model}", f"--input={tmp_path / 'pairs.csv'}"]
        assert predict.entry([*argv, f"--output={tmp_path / 'out.parquet'}"]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
        return line

    corpus = (model / wanted["corpus"]).read_bytes()
    (model / wanted["corpus"]).unlink()
    assert "corpus statistics cannot be read" in refused()
    (model / wanted["corpus"]).write_bytes(corpus)
    (model / "ranker.json").write_text("{")
    assert "ranker.json cannot be read" in refused()
