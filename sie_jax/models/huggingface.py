"""Hugging Face folders: reads config.json and safetensors into a model, and writes them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from transformers import PretrainedConfig

from sie_jax.errors import UserError
from sie_jax.files import read_json
from sie_jax.models.architecture import Architecture

_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_MOST_LABELS = 10_000  # transformers makes up a name for each
_FLOATING = ("F64", "F32", "F16", "BF16")  # as safetensors calls them


@dataclass(frozen=True)
class LoadReport:
    """Which tensors a folder lacks, and which of its tensors the model does not have.

    Attributes:
      initialised: tensors of the model that the folder lacks, by their stored names.
      ignored: tensors of the folder that the model does not have, by their names in the folder.
    """

    initialised: list[str]
    ignored: list[str]

    def notes(self, folder: str | Path) -> list[str]:
        """One line for what was initialised and one for what was ignored, if there is any."""
        return [
            f"{folder}: {what} {', '.join(names)}"
            for what, names in (("initialised", self.initialised), ("ignored", self.ignored))
            if names
        ]


@dataclass(frozen=True)
class _Stored:
    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a folder by name, not yet read: from one safetensors file or from shards.

    A folder of an encoder alone and one of a model with heads name an encoder's tensors alike here:
    the prefix (`bert.`) is dropped. LayerNorm's old `gamma` and `beta` become `weight` and `bias`.

    Attributes:
      folder: the folder.
      tensors: the place and the shape of each tensor, by name.
      unused: stored names that were set aside.
    """

    folder: Path
    tensors: Mapping[str, _Stored]
    unused: tuple[str, ...] = ()

    @classmethod
    def open(cls, folder: str | Path, prefix: str) -> Checkpoint:
        """Read the names and shapes; `prefix` is that of the encoder, without the dot.

        Raises:
          UserError: the folder has no safetensors, they cannot be read, or they hold a tensor
            twice.
        """
        folder = Path(folder)
        tensors: dict[str, _Stored] = {}
        for file in _files(folder):
            try:
                with safe_open(file, framework="np") as opened:
                    for name in opened.keys():  # noqa: SIM118 (the handle is no mapping)
                        found = opened.get_slice(name)
                        stored = _Stored(file, name, tuple(found.get_shape()), found.get_dtype())
                        other = tensors.setdefault(_canonical(name, prefix), stored)
                        if other is not stored:
                            raise UserError(
                                f"{file}: {name} is the tensor that {other.file.name} holds as "
                                f"{other.name}: copy the checkpoint again, into an empty folder"
                            )
            except (OSError, SafetensorError) as error:
                raise UserError(_unreadable(file, error)) from error
        return cls(folder, tensors)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The tensor's shape, or None if there is no such tensor."""
        return self.tensors[name].shape if name in self.tensors else None

    def without(self, prefix: str) -> Checkpoint:
        """The checkpoint with the tensors whose names begin with `prefix` set aside."""
        kept = {k: v for k, v in self.tensors.items() if not k.startswith(prefix)}
        aside = tuple(v.name for k, v in self.tensors.items() if k not in kept)
        return Checkpoint(self.folder, kept, self.unused + aside)


def open_folder(
    folder: str | Path, families: Sequence[Architecture]
) -> tuple[Any, Architecture, Checkpoint]:
    """The configuration of a folder, the family that it is of, and the tensors, not yet read.

    Raises:
      UserError: as `read_config` and `Checkpoint.open`, and where config.json names another number
        of layers than the tensors are of: a model with fewer layers would be another model.
    """
    config, family = read_config(folder, families)
    checkpoint = Checkpoint.open(folder, family.prefix)
    layers = f"{family.stored('layers')}."
    held = {
        int(number)
        for name in checkpoint.tensors
        if name.startswith(layers)
        and (number := name.removeprefix(layers).partition(".")[0]).isdecimal()
    }
    if held != set(range(min(config.num_hidden_layers, len(held) + 1))):
        raise UserError(
            f"{checkpoint.folder}: num_hidden_layers in config.json is {config.num_hidden_layers}, "
            f"but the tensors are of {len(held)} layers ({layers}NUMBER): take both from one model"
        )
    return config, family, checkpoint


def read_config(folder: str | Path, families: Sequence[Architecture]) -> tuple[Any, Architecture]:
    """Read `config.json` as the configuration of one of the families, which is returned too.

    Raises:
      UserError: there is no such folder or file, the file holds no JSON object or values that the
        family's configuration refuses, its `model_type` is of another family, or its labels are
        not numbered from 0 on.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a local folder in Hugging Face layout")
    path = folder / _CONFIG
    fields = _read_json(path)
    model_type = fields.get("model_type")
    for family in families:
        if family.model_type == model_type:
            number, named = fields.get("num_labels"), fields.get("id2label")
            for labels in (number, len(named) if isinstance(named, dict) else None):
                if isinstance(labels, int) and labels > _MOST_LABELS:
                    raise UserError(f"{path}: num_labels is {labels}: give at most {_MOST_LABELS}")
            try:
                config = family.config.from_dict(fields)
            except Exception as error:  # validation raises several kinds
                reason = " ".join(str(error).split())
                raise UserError(f"{path}: not a {family.config.__name__}: {reason}") from error
            names = config.id2label
            texts = all(isinstance(name, str) for name in names.values())
            if set(names) != set(range(len(names))) or not texts:
                raise UserError(
                    f"{path}: id2label is {_shortened(names)}: give a name for each number from 0 "
                    "on"
                )
            return config, family
    known = ", ".join(repr(family.model_type) for family in families)
    raise UserError(
        f"{path}: model_type is {model_type!r}, only {known} can be read: give the folder of such "
        "a model"
    )


@contextmanager
def named(folder: str | Path) -> Iterator[None]:
    """Names the folder in a UserError about the configuration that was read there."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None


def load(model: Any, checkpoint: Checkpoint, *, heads: Sequence[Set[str]] = ()) -> LoadReport:
    """Set the model's parameters, in place, from the checkpoint; stored dtypes become float32.

    Args:
      model: an encoder or a model with heads, with its `architecture`; it may be abstract
        (`nnx.eval_shape`), which avoids initialising what is read anyway.
      checkpoint: the tensors to read.
      heads: the names of each head's layers. A head that is not complete in the checkpoint keeps
        its values.

    Raises:
      UserError: tensors are absent, have another shape, hold integers, NaN or infinity, or are of
        a part of the encoder that the model does not have. The message names all of them.
    """
    state = nnx.state(model, nnx.Param)
    family: Architecture = model.architecture
    wanted = {family.stored(*path): (path, leaf) for path, leaf in nnx.to_flat_state(state)}
    initialised, problems = set(), []
    for head in heads:  # half a head is no head
        mine = {name for name, (path, _) in wanted.items() if head & {str(part) for part in path}}
        if any(_canonical(name, family.prefix) not in checkpoint.tensors for name in mine):
            initialised |= mine
    sources: dict[str, _Stored] = {}
    known = {full_name: _canonical(full_name, family.prefix) for full_name in wanted}
    for full_name, (path, leaf) in wanted.items():
        if full_name in initialised:
            continue
        name = known[full_name]
        stored = checkpoint.tensors.get(name)
        shape = tuple(leaf.shape)
        expected = shape[::-1] if path[-1] == "kernel" else shape
        if stored is None:
            problems.append(f"{name} is missing")
        elif stored.shape != expected:
            problems.append(f"{name} has shape {list(stored.shape)}, expected {list(expected)}")
        elif stored.dtype not in _FLOATING:
            problems.append(f"{name} holds {stored.dtype}, expected {' or '.join(_FLOATING)}")
        else:
            sources[full_name] = stored
    rooms = {family.stored(part).partition(".")[0] for part in ("word_embeddings", "layers")}
    problems += [
        f"{name} is of no part of the encoder that config.json describes"
        for name in sorted(checkpoint.tensors.keys() - set(known.values()))
        if name.partition(".")[0] in rooms
        # integers are buffers, such as position_ids
        and checkpoint.tensors[name].dtype in _FLOATING
    ]
    _refuse(checkpoint.folder, "the tensors do not fit config.json", problems)
    arrays = _read(sources)
    _refuse(
        checkpoint.folder,
        "the weights are damaged, copy the checkpoint again",
        [
            f"{name} holds NaN or infinity"
            for name, array in arrays.items()
            if not np.isfinite(array).all()
        ],
    )
    for full_name, array in arrays.items():
        path, leaf = wanted[full_name]
        leaf.set_value(jnp.asarray(array.T if path[-1] == "kernel" else array))
    nnx.update(model, state)
    used = {stored.name for stored in sources.values()}
    ignored = [stored.name for stored in checkpoint.tensors.values() if stored.name not in used]
    return LoadReport(sorted(initialised), sorted([*ignored, *checkpoint.unused]))


def save(model: Any, folder: str | Path, kind: str, **fields: Any) -> None:
    """Write `model.safetensors` and `config.json` as transformers does, float32.

    Each file is written under another name and then renamed, config.json last, so that a reader
    never finds half a file. The folder is created if need be; other files in it stay.

    Args:
      model: an encoder or a model with heads, with its `architecture` and `config`.
      folder: the folder to write.
      kind: the end of the name of transformers' class that reads the folder: `Model` of
        `BertModel`.
      fields: further fields of config.json.
    """
    family: Architecture = model.architecture
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        array = np.asarray(leaf[...], np.float32)
        # safetensors writes the buffer in memory order, which of a transposed view is wrong.
        tensors[family.stored(*path)] = np.ascontiguousarray(
            array.T if path[-1] == "kernel" else array
        )
    config = config_to_dict(model.config) | {
        "dtype": "float32",
        "architectures": [f"{family.class_name}{kind}"],
        **fields,
    }

    temporary = folder / f".{_WEIGHTS}.{os.getpid()}"
    save_file(tensors, temporary, metadata={"format": "pt"})
    temporary.chmod(0o644)  # the library writes it for its owner alone
    os.replace(temporary, folder / _WEIGHTS)
    # An index left by a sharded checkpoint would name shards of another model.
    (folder / _INDEX).unlink(missing_ok=True)
    temporary = folder / f".{_CONFIG}.{os.getpid()}"
    temporary.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(temporary, folder / _CONFIG)


def config_to_dict(config: PretrainedConfig) -> dict[str, Any]:
    """The configuration as JSON values, with label names even if they are the defaults."""
    fields = json.loads(config.to_json_string())
    names = {str(index): name for index, name in config.id2label.items()}
    return fields | {"id2label": names, "label2id": {name: int(i) for i, name in names.items()}}


def _refuse(folder: Path, what: str, problems: Sequence[str]) -> None:
    if problems:
        more = f"; and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise UserError(f"{folder}: {what}: {'; '.join(problems[:20])}{more}")


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _canonical(name: str, prefix: str) -> str:
    name = name.removeprefix(f"{prefix}.")
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
        names = sorted(set(shards.values()))
        if outside := [name for name in names if Path(name).name != name]:
            raise UserError(
                f"{index}: names files that are not of this folder: {', '.join(outside)}: copy the "
                "checkpoint again, with its shards beside the index"
            )
        files = [folder / name for name in names]
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
        fields = read_json(path)
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
            with safe_open(file, framework="flax") as opened, np.errstate(over="ignore"):
                for key, stored in sources.items():
                    if stored.file == file:
                        arrays[key] = np.asarray(opened.get_tensor(stored.name), np.float32)
        except (OSError, SafetensorError) as error:
            raise UserError(_unreadable(file, error)) from error
    return arrays


def _unreadable(file: Path, error: Exception) -> str:
    return f"{file}: cannot be read: {' '.join(str(error).split())}"
