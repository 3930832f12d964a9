import io
from pathlib import Path

import checkpoints
import numpy as np
import pytest
from model_folders import rewrite
from rich.console import Console

from sie_jax import serving
from sie_jax.data import sentences
from sie_jax.errors import UserError
from sie_jax.serving import scoring
from sie_jax.serving.settings import Settings


@pytest.mark.parametrize(
    ("max_length", "boundaries"),
    [(8, (8,)), (16, (16,)), (17, (16, 17)), (64, (16, 32, 64)), (100, (16, 32, 64, 100))],
)
def test_boundaries_double_up_to_the_greatest_length(
    max_length: int, boundaries: tuple[int, ...]
) -> None:
    assert scoring._boundaries(max_length) == boundaries


def test_rows_are_of_one_query_by_id_and_text() -> None:
    rows = [
        {"query": "red lamp"},
        {"query": "Red  lamp", "query_id": None},
        {"query": "red lamp", "query_id": "1"},
        {"query": "RED lamp", "query_id": "1"},
        {"query": "shoe", "query_id": "1"},
        {"query": "red lamp", "query_id": "2"},
    ]
    numbers = [scoring._query_number(row) for row in rows]
    assert [numbers.index(number) for number in numbers] == [0, 0, 2, 2, 4, 5]


def test_what_a_folder_holds_beside_the_model_is_told(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "model", ["red lamp"], num_labels=2)
    settings = Settings((0.0, 1.0), max_length=16)
    assert serving.load(folder, settings).notes == ()
    rewrite(folder, lambda tensors: tensors | {"cls.predictions.bias": np.zeros(3, np.float32)})
    assert serving.load(folder, settings).notes == (f"{folder}: ignored cls.predictions.bias",)
    (tmp_path / "pairs.csv").write_text("query,title\nred lamp,lamp\n")
    said = io.StringIO()
    serving.score_table(
        folder,
        serving.Pairs(str(tmp_path / "pairs.csv"), {"query": "query", "title": "title"}),
        tmp_path / "scored.parquet",
        settings=settings,
        console=Console(file=said),
    )
    assert "ignored cls.predictions.bias" in said.getvalue()


def test_a_folder_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be the current one."""
    checkpoints.write(tmp_path, ["red lamp"], num_labels=2)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="the model's folder has no name"):
        serving.load("", Settings((0.0, 1.0), max_length=16))


def test_a_folder_of_sentence_transformers_scores_by_the_cosine(tmp_path: Path) -> None:
    """Also one that no run of ours made: then the settings are given."""
    rows = [
        {"query": query, "title": title}
        for query in ("red lamp", "shoe")
        for title in ("a red lamp", "blue running shoes", "lamp")
    ]
    texts = [text for row in rows for text in row.values()]
    encoder = sentences.load(checkpoints.write(tmp_path / "plain", texts))
    sentences.save(encoder, tmp_path / "towers")
    scorer = serving.load(tmp_path / "towers", Settings((0.0, 1.0), max_length=32))
    found = serving.score(scorer, [*rows, {"query": "", "title": "lamp"}])
    queries, titles = ([row[name] for row in rows] for name in ("query", "title"))
    wanted = sentences.cosine(encoder, queries, titles)
    # other padding, and so another order of float32 sums
    np.testing.assert_allclose(found["score"].to_numpy()[:-1], wanted, atol=1e-6)
    assert found["reason"].to_pylist() == [None] * 6 + ["missing_query"]
    assert "prediction" not in found.column_names
    assert serving.score(scorer, [{"query": "", "title": ""}])["score"].to_pylist() == [None]
