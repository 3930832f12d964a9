"""What a model's folder says about itself beside Hugging Face's files, in sie_jax.json."""

from pathlib import Path
from typing import Any, NamedTuple

from sie_jax.errors import UserError
from sie_jax.files import read_json, write_json

FILE = "sie_jax.json"
SHORTEST = 8  # the least that max_length may be


class Settings(NamedTuple):
    """How a model's pairs were made, and what its score means.

    Attributes:
      gains: of the labels, lowest grade first; the score is their expectation. Empty, or not read,
        where the model has one output, its relevance.
      max_length: the most tokens of a pair.
      item_text: whether an item's further text follows its title.
      max_query_characters, max_title_characters: longer texts are not scored.
    """

    gains: tuple[float, ...]
    max_length: int
    item_text: bool = False
    max_query_characters: int = 512
    max_title_characters: int = 2000

    def write(self, folder: Path) -> None:
        """Writes sie_jax.json into a model's folder."""
        write_json(folder / FILE, self._asdict())

    @classmethod
    def read(cls, folder: Path) -> "Settings":
        """Reads sie_jax.json from a model's folder.

        Raises:
          UserError: the file is missing, or does not hold settings that a model can be used with.
        """
        path = folder / FILE
        if not path.is_file():
            raise UserError(
                f"{folder} has no {FILE}, so it does not say how its pairs were made: give --gains "
                "and --max_length"
            )
        try:
            values = read_json(path)
            settings = cls(**{**values, "gains": tuple(values["gains"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} cannot be read: {error}") from None
        for name, wrong, wanted in (
            ("gains", not all(map(_is_number, settings.gains)), "a list of numbers"),
            ("item_text", not isinstance(settings.item_text, bool), "true or false"),
            ("max_length", not _is_count(settings.max_length, SHORTEST), f"{SHORTEST} or more"),
            *(
                (name, not _is_count(getattr(settings, name), 1), "1 or more")
                for name in ("max_query_characters", "max_title_characters")
            ),
        ):
            if wrong:
                value = values.get(name)
                raise UserError(f"{path} cannot be read: {name} is {value!r}: give {wanted}")
        return settings


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) < 1e300  # an integer may be beyond a float


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**31
