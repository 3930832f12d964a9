"""What tests do to a model's folder, and the one line that comes of it."""

import json

import checkpoints
import pytest
from safetensors.numpy import load_file, save_file

from sie_jax.data import lexical
from sie_jax.data.lexical import CorpusStatistics
from sie_jax.errors import UserError
from sie_jax.models.linear import LinearRanker
from sie_jax.models.ranker import Ranker
from sie_jax.serving import Settings

NAMES = ["irrelevant", "partial", "exact"]


def by_features(folder, list_lengths):
    """A folder of a model that ranks by one feature, the share of the query's words found."""
    checkpoints.write(folder, ["red lamp"], id2label=dict(enumerate("012")), num_labels=3)
    Settings((0.0, 0.5, 1.0), 16).write(folder)
    corpus = folder / "corpus.parquet"
    CorpusStatistics(lexical.count(["red lamp"]), lexical.count([""])).save(corpus)
    weights = LinearRanker(("overlap_title",), (1.0,), 1.0)
    Ranker("linear", "u", linear=weights, corpus=corpus.name, list_lengths=list_lengths).save(
        folder
    )
    return folder


def rewrite(folder, change):
    """Pass the stored tensors through `change`."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


def set_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def user_error(call):
    """The message of the UserError that `call` raises: one line."""
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def shard(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for i, file in enumerate(files):
        save_file({name: tensors[name] for name in names[i::2]}, folder / file)
    index = {"weight_map": {name: files[i % 2] for i, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return files
