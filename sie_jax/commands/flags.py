"""The flags of train.py and prepare.py: a config file, its overrides, the workdir."""

import difflib
import functools
import re
import runpy
import traceback
import typing
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags

from sie_jax.config import (
    AnyConfig,
    ChainConfig,
    Config,
    ConversationConfig,
    RecommendationConfig,
    RetrievalConfig,
    as_json,
)
from sie_jax.errors import UserError
from sie_jax.sections import flat

CONFIGS = (Config, RecommendationConfig, RetrievalConfig, ChainConfig, ConversationConfig)
"""What a config file may return, one for each recipe."""


class Command(NamedTuple):
    """What a command line asks for.

    Attributes:
      config: the file's, with the fields that flags override; of one of CONFIGS.
      workdir: the folder of the results, local or in an object store.
      distributed: whether this process is one of several.
      redo: names of the finished stages to make again.
    """

    config: AnyConfig
    workdir: str
    distributed: bool
    redo: tuple[str, ...]


def parse(argv: list[str]) -> Command:
    """Reads a command line, whose first word is the program's name.

    A field that holds a tuple takes its values separated by commas, or its flag several times, and
    so does --redo.

    Raises:
      UserError: a flag cannot be used; the message names the first one.
    """
    kind = kind_of(argv)
    fields: dict[str, Any] = flat(as_json(kind()))
    _check_fields(argv, fields)
    argv, tuples = _without_tuples(argv, fields)
    values = flags.FlagValues()  # of this command line alone: libraries define flags of their own
    try:
        config_flags.DEFINE_config_dataclass(
            "config", kind(), flag_values=values, sys_argv=argv, parse_fn=_load
        )
        flags.DEFINE_string("workdir", None, "", flag_values=values)
        flags.DEFINE_bool("distributed", False, "", flag_values=values)
        flags.DEFINE_multi_string("redo", [], "", flag_values=values)
        rest = values(argv)[1:]
    except flags.IllegalFlagValueError as error:
        flag = str(error).removeprefix("flag ").partition(": ")[0]
        default = fields.get(flag.partition("=")[0].removeprefix("--config."), False)
        raise UserError(f"{flag}: give a value of type {type(default).__name__}") from None
    except flags.UnrecognizedFlagError as error:
        raise UserError(
            f"--{error.flagname} is not a flag: the flags are --config, --config.FIELD, --workdir, "
            "--redo, --dry-run, --distributed and --replay"
        ) from None
    except flags.Error as error:
        raise UserError(f"{error}; see --help") from None
    if rest:
        raise UserError(f"{rest[0]!r} is not a flag: flags begin with --, as in --workdir=FOLDER")
    if not values["config"].present:
        raise UserError("--config is missing: give a file, as in --config=configs/quickstart.py")
    config: AnyConfig = values.config
    for field, texts in tuples.items():
        _set_tuple(config, field, texts)
    workdir = values.workdir or f"runs/{config.name}"
    return Command(config, workdir, values.distributed, tuple(_split(values.redo)))


def kind_of(argv: list[str]) -> type[AnyConfig]:
    """The class of the config that a command line names; that of relevance where it names none."""
    words = iter(argv[1:])
    for word in words:
        name, given, file = word.partition("=")
        if name in ("--config", "-config"):
            file = file if given else next(words, "")
            return type(_load(file)) if Path(file).is_file() else Config
    return Config


def _without_tuples(
    argv: list[str], fields: dict[str, Any]
) -> tuple[list[str], dict[str, list[str]]]:
    """The flags of no tuple, and the texts that the other flags give, by field."""
    rest, texts = argv[:1], dict[str, list[str]]()
    words = iter(argv[1:])
    for flag in words:
        given = re.match(r"--?config\.([^=]*)(=?)(.*)", flag, re.DOTALL)
        if given is None or not isinstance(fields.get(given[1]), list):
            rest.append(flag)
            continue
        text = given[3] if given[2] else next(words, None)
        if text is None:
            raise UserError(f"{flag}: give a value, as in {flag}=VALUE,VALUE")
        texts.setdefault(given[1], []).append(text)
    return rest, texts


def _set_tuple(config: AnyConfig, field: str, texts: list[str]) -> None:
    *path, name = field.split(".")
    section = functools.reduce(getattr, path, config)
    kind = typing.get_args(typing.get_type_hints(type(section))[name])[0]
    try:
        setattr(section, name, tuple(kind(part) for part in _split(texts)))
    except ValueError:
        raise UserError(
            f"{field} is {','.join(texts)!r}: give values of type {kind.__name__}, separated by "
            "commas"
        ) from None


def _split(texts: list[str]) -> list[str]:
    parts = (part.strip() for text in texts for part in text.split(","))
    return [part for part in parts if part]


def _check_fields(argv: list[str], fields: dict[str, Any]) -> None:
    """Raises UserError for the first flag that overrides a field which no config has."""
    for flag in argv[1:]:
        override = re.match(r"--?(?:no)?config\.([^=]*)", flag)
        if override and override[1] not in fields:
            name = override[1]
            near = [field for field in fields if field.startswith(f"{name}.")]
            near = near or difflib.get_close_matches(name, fields, n=1)
            fix = f"did you mean {' or '.join(near)}?" if near else "--help lists all fields"
            raise UserError(f"--config.{name}: there is no field {name!r}; {fix}")


def _load(file: str) -> AnyConfig:
    """What a config file's get_config returns; any error in that file is the user's to fix."""
    if not Path(file).is_file():
        raise UserError(f"--config={file}: no such file; give one such as configs/quickstart.py")
    try:
        get_config = runpy.run_path(file).get("get_config")
        config = get_config() if get_config else None
    except Exception as error:
        lines = [
            at.lineno for at in traceback.extract_tb(error.__traceback__) if at.filename == file
        ]
        where = f"{file}, line {lines[-1]}" if lines else file
        raise UserError(f"--config={where}: {type(error).__name__}: {error}") from None
    if not isinstance(config, CONFIGS):
        raise UserError(
            f"--config={file}: give it a get_config that returns "
            f"{' or '.join(f'sie_jax.config.{one.__name__}' for one in CONFIGS)}"
        )
    return config
