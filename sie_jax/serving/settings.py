"""What a model's folder says about itself beside Hugging Face's files, in sie_jax.json."""

from pathlib import Path
from typing import NamedTuple

from sie_jax.errors import UserError
from sie_jax.files import read_json, write_json

NAME = "sie_jax.json"


class Settings(NamedTuple):
    """How a model's pairs were made, and what its score means.

    Attributes:
      gains: of the labels, lowest grade first; the score is their expectation. Not read where the
        model has one output, its relevance.
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
        write_json(folder / NAME, self._asdict())

    @classmethod
    def read(cls, folder: Path) -> "Settings":
        """Reads sie_jax.json from a model's folder.

        Raises:
          UserError: the file is missing, or does not hold settings.
        """
        path = folder / NAME
        if not path.is_file():
            raise UserError(
                f"{folder} has no {NAME}, so it does not say how its pairs were made: give --gains "
                "and --max_length"
            )
        try:
            values = read_json(path)
            return cls(**{**values, "gains": tuple(values["gains"])})
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} cannot be read: {error}") from None
