"""Models' folders of $SIE_JAX_DATA/cases on which the product failed: each gives what is right."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from sie_jax import serving
from sie_jax.commands import predict
from sie_jax.data import tokenization
from sie_jax.errors import UserError
from sie_jax.models.section import ModelConfig
from sie_jax.serving import Settings

CASES = Path(os.environ.get("SIE_JAX_DATA", "")) / "cases"

pytestmark = pytest.mark.skipif(
    not CASES.is_dir(), reason="SIE_JAX_DATA names no folder with cases in it"
)


def test_one_segment_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = CASES / "one_segment_type"
    flags = [f"--model={case / 'model'}", f"--input={case / 'pairs.csv'}"]
    assert predict.entry(["predict", *flags, f"--output={tmp_path / 'out.parquet'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "type_vocab_size in the configuration is 1" in line
    assert not list(tmp_path.iterdir())
    section = ModelConfig(pretrained=str(case / "model"))
    with pytest.raises(UserError, match="type_vocab_size"):
        section.classifier(("0", "1", "2"), vocabulary_size=176, max_length=32, seed=0)


def test_vocab_txt_options(tmp_path: Path) -> None:
    folder = shutil.copytree(CASES / "vocab_txt_options" / "polish", tmp_path / "polish")
    tokenizer = tokenization.load(folder)
    words = (folder / "vocab.txt").read_text(encoding="utf-8").split()
    assert tokenizer(" ".join(words[5:]), add_special_tokens=False)["input_ids"] == [
        *range(5, len(words))
    ]
    (folder / "config.json").write_text('{"model_type": "bert"}')
    theirs = AutoTokenizer.from_pretrained(folder)
    pair = "Hułajnoga ŻE", "schön że 靴 hulajnoga"
    (found,) = tokenization.encode_pairs(
        tokenizer, *([text] for text in pair), max_length=64
    ).input_ids
    assert found.tolist() == theirs(*pair)["input_ids"]
    options = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(options | {"tokenizer_class": "HerbertTokenizer"})
    )
    with pytest.raises(UserError, match="tokenizer_class is HerbertTokenizer, and only Bert"):
        tokenization.load(folder)


def test_exported_max_length(tmp_path: Path) -> None:
    """What the case lacks is in a folder once its tokenizer is saved as every run saves it."""
    case = CASES / "exported_max_length" / "model"
    settings, tokenizer = Settings.read(case), tokenization.load(case)
    folder = shutil.copytree(case, tmp_path / "model", copy_function=shutil.copyfile)
    folder.chmod(0o755)
    tokenization.save(tokenizer, folder, max_length=settings.max_length)
    outside = AutoTokenizer.from_pretrained(folder)
    assert (outside.model_max_length, outside.truncation_side) == (32, "right")
    generator = np.random.default_rng(0)
    words = ["steel", "kettle", "red", "green", "hose", "wool", "0", "1"]
    sizes = [(3, 40), (28, 40), (20, 12), (2, 3), (16, 16)]
    queries, titles = (
        [" ".join(generator.choice(words, size[place])) for size in sizes] for place in (0, 1)
    )
    scorer = serving.load(folder)
    encoded = tokenization.encode_pairs(
        scorer.tokenizer, queries, titles, max_length=scorer.settings.max_length
    )
    theirs = outside(queries, titles, truncation=True)
    assert [ids.tolist() for ids in encoded.input_ids] == theirs["input_ids"]
    assert max(map(len, theirs["input_ids"])) == 32
