"""A table's scores are of one model: whatever file of it changes is noticed."""

from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from model_folders import shard
from safetensors.numpy import load_file, save_file

from sie_jax import serving
from sie_jax.errors import UserError
from sie_jax.serving import Pairs, Settings, table


def test_a_shard_that_changed_is_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = checkpoints.write(tmp_path / "model", ["red lamp"], num_labels=2)
    file = model / shard(model)[1]
    (tmp_path / "pairs.csv").write_text("query,title\nred lamp,lamp\n")
    pairs = Pairs(str(tmp_path / "pairs.csv"), {"query": "query", "title": "title"})
    arguments = (model, pairs, tmp_path / "scored.parquet")
    options: dict[str, Any] = {"settings": Settings((0.0, 1.0), max_length=16)}

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(table, "described", stop)
    with pytest.raises(KeyboardInterrupt):
        serving.score_table(*arguments, **options)
    tensors = load_file(file)
    save_file({name: value + np.float32(1) for name, value in tensors.items()}, file)
    with pytest.raises(UserError, match="begun with another model: remove it"):
        serving.score_table(*arguments, **options)
