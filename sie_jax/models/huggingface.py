"""Hugging Face folders: config.json and safetensors, read into and written from a model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from transformers import BertConfig

from sie_jax.errors import UserError

_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"

# A parameter's path in the model, part by part, in Hugging Face's words; other parts (the layer's
# number, `bert`, `classifier`, `bias`) are the same in both.
_PARTS = {
    "word_embeddings": "embeddings.word_embeddings.weight",
    "position_embeddings": "embeddings.position_embeddings.weight",
    "token_type_embeddings": "embeddings.token_type_embeddings.weight",
    "embeddings_norm": "embeddings.LayerNorm",
    "layers": "encoder.layer",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
    "pooler": "pooler.dense",
    "transform": "cls.predictions.transform.dense",
    "transform_norm": "cls.predictions.transform.LayerNorm",
    "vocabulary_bias": "cls.predictions.bias",
    "relationship": "cls.seq_relationship",
    "kernel": "weight",
    "scale": "weight",
}


@dataclass(frozen=True)
class LoadReport:
    """What a folder did not decide, and what in it was not used.

    Attributes:
      initialised: tensors of the model that the folder lacks, by their Hugging Face names.
      ignored: tensors of the folder that the model has no place for, by their names in the folder.
    """

    initialised: list[str]
    ignored: list[str]


@dataclass(frozen=True)
class _Stored:
    file: Path
    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a folder, by name, unread: from one safetensors file or from shards.

    Names are `BertModel`'s: a prefix `bert.` is dropped, LayerNorm's old `gamma` and `beta` are
    `weight` and `bias`.

    Attributes:
      folder: where they lie.
      tensors: where each tensor lies and its shape, by name.
      unused: stored names that were set aside.
    """

    folder: Path
    tensors: Mapping[str, _Stored]
    unused: tuple[str, ...] = ()

    @classmethod
    def open(cls, folder: str | Path) -> Checkpoint:
        """Read the names and shapes.

        Raises:
          UserError: the folder has no safetensors, or they cannot be read.
        """
        folder = Path(folder)
        tensors: dict[str, _Stored] = {}
        unused: list[str] = []
        for file in _files(folder):
            try:
                with safe_open(file, framework="np") as opened:
                    for name in opened.keys():  # noqa: SIM118 (the handle is no mapping)
                        shape = tuple(opened.get_slice(name).get_shape())
                        canonical = _canonical(name)
                        if canonical in tensors:
                            unused.append(name)
                        else:
                            tensors[canonical] = _Stored(file, name, shape)
            except (OSError, SafetensorError) as error:
                raise UserError(_unreadable(file, error)) from error
        return cls(folder, tensors, tuple(unused))

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The tensor's shape, or None where there is no such tensor."""
        return self.tensors[name].shape if name in self.tensors else None

    def without(self, prefix: str) -> Checkpoint:
        """The checkpoint with the tensors whose names begin with `prefix` set aside."""
        kept = {k: v for k, v in self.tensors.items() if not k.startswith(prefix)}
        aside = tuple(v.name for k, v in self.tensors.items() if k not in kept)
        return Checkpoint(self.folder, kept, self.unused + aside)


def config_from_json(text: str) -> BertConfig:
    """The `transformers.BertConfig` written in a JSON text."""
    return BertConfig.from_dict(json.loads(text))


def read_config(folder: str | Path) -> BertConfig:
    """Read `config.json`.

    Raises:
      UserError: no such folder or file, no JSON object, values that BertConfig refuses, or another
        model type than bert.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a local folder in Hugging Face layout")
    path = folder / _CONFIG
    fields = _read_json(path)
    model_type = fields.get("model_type")
    if model_type != "bert":
        raise UserError(
            f"{path}: model_type is {model_type!r}, only 'bert' can be read: give the folder of a "
            "BERT model"
        )
    try:
        return BertConfig.from_dict(fields)
    except Exception as error:  # BertConfig's validation raises several kinds
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a BERT configuration: {reason}") from error


def names(model: nnx.Module) -> list[str]:
    """The names of the model's tensors in a `Checkpoint`."""
    paths = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return [_canonical(_name(path)) for path, _ in paths]


def load(
    model: nnx.Module, checkpoint: Checkpoint, *, optional: tuple[str, ...] = ()
) -> LoadReport:
    """Set the model's parameters, in place, from the checkpoint; stored dtypes become float32.

    Args:
      model: a `FlaxBert` or a module that holds one as `bert`; it may be abstract
        (`nnx.eval_shape`), which spares initialising what is read anyway.
      checkpoint: where from.
      optional: beginnings of names (without `bert.`) that may be absent: those parameters stay.

    Raises:
      UserError: a tensor is absent or has another shape; all such are named in one line.
    """
    state = nnx.state(model, nnx.Param)
    wanted = {_name(path): (path, leaf) for path, leaf in nnx.to_flat_state(state)}
    initialised, problems = [], []
    sources: dict[str, _Stored] = {}
    for full_name, (path, leaf) in wanted.items():
        name = _canonical(full_name)
        stored = checkpoint.tensors.get(name)
        shape = tuple(leaf.shape)
        expected = shape[::-1] if path[-1] == "kernel" else shape
        if stored is None:
            if name.startswith(optional):
                initialised.append(full_name)
            else:
                problems.append(f"{name} is missing")
        elif stored.shape != expected:
            problems.append(f"{name} has shape {list(stored.shape)}, expected {list(expected)}")
        else:
            sources[full_name] = stored
    if problems:
        raise UserError(
            f"{checkpoint.folder}: the tensors do not fit config.json: {'; '.join(problems)}"
        )
    arrays = _read(sources)
    for full_name, array in arrays.items():
        path, leaf = wanted[full_name]
        leaf.set_value(jnp.asarray(array.T if path[-1] == "kernel" else array))
    nnx.update(model, state)
    used = {stored.name for stored in sources.values()}
    ignored = [stored.name for stored in checkpoint.tensors.values() if stored.name not in used]
    return LoadReport(sorted(initialised), sorted([*ignored, *checkpoint.unused]))


def save(model: Any, folder: str | Path, fields: Mapping[str, Any]) -> None:
    """Write `model.safetensors` and `config.json` as transformers does, float32.

    Each file is written beside its place and then moved there, config.json last: a reader never
    meets half a file. The folder is made; other files in it stay.

    Args:
      model: a `FlaxBert` or a module that holds one as `bert`, with a `config`.
      folder: where to.
      fields: what to set in the configuration.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        array = np.asarray(leaf[...], np.float32)
        # safetensors writes the buffer as it lies, so a transposed view would be written wrong.
        tensors[_name(path)] = np.ascontiguousarray(array.T if path[-1] == "kernel" else array)
    config = config_to_dict(model.config) | {"dtype": "float32"} | dict(fields)

    temporary = folder / f".{_WEIGHTS}.{os.getpid()}"
    save_file(tensors, temporary, metadata={"format": "pt"})
    os.replace(temporary, folder / _WEIGHTS)
    # An index left by a sharded checkpoint would name shards of another model.
    (folder / _INDEX).unlink(missing_ok=True)
    temporary = folder / f".{_CONFIG}.{os.getpid()}"
    temporary.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(temporary, folder / _CONFIG)


def config_to_dict(config: BertConfig) -> dict[str, Any]:
    """The configuration as JSON values, label names included even where they are the defaults."""
    fields = json.loads(config.to_json_string())
    names = {str(index): name for index, name in config.id2label.items()}
    return fields | {"id2label": names, "label2id": {name: int(i) for i, name in names.items()}}


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(_PARTS.get(str(part), str(part)) for part in path)


def _canonical(name: str) -> str:
    name = name.removeprefix("bert.")
    if name.endswith(".LayerNorm.gamma"):
        return name.removesuffix("gamma") + "weight"
    if name.endswith(".LayerNorm.beta"):
        return name.removesuffix("beta") + "bias"
    return name


def _files(folder: Path) -> list[Path]:
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    index = folder / _INDEX
    if index.is_file():
        shards = _read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(s, str) for s in shards.values()):
            raise UserError(f"{index}: has no weight_map from tensor names to files")
        files = [folder / name for name in sorted(set(shards.values()))]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise UserError(f"{index}: names files that are not there: {', '.join(missing)}")
        return files
    if (folder / "pytorch_model.bin").is_file():
        raise UserError(
            f"{folder}: has pytorch_model.bin but no {_WEIGHTS}; convert it: in transformers, "
            "load the model and call save_pretrained, which writes safetensors"
        )
    raise UserError(f"{folder}: no {_WEIGHTS} in this folder")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise UserError(_unreadable(path, error)) from error
    if not isinstance(fields, dict):
        raise UserError(f"{path}: not a JSON object")
    return fields


def _read(sources: Mapping[str, _Stored]) -> dict[str, np.ndarray]:
    arrays = {}
    for file in sorted({stored.file for stored in sources.values()}):
        try:
            # framework "flax" rather than "np": it reads bfloat16 as well
            with safe_open(file, framework="flax") as opened:
                for key, stored in sources.items():
                    if stored.file == file:
                        arrays[key] = np.asarray(opened.get_tensor(stored.name), np.float32)
        except (OSError, SafetensorError) as error:
            raise UserError(_unreadable(file, error)) from error
    return arrays


def _unreadable(file: Path, error: Exception) -> str:
    return f"{file}: cannot be read: {' '.join(str(error).split())}"
