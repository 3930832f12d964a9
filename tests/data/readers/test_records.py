import pytest
from etils import epath

from sie_jax.data.readers.records import Wanted, nearest
from sie_jax.errors import UserError


@pytest.mark.parametrize(
    ("name", "columns", "found"),
    [
        ("title", ["sku", "product_title"], "product_title"),
        ("title", ["sku", "ProductName"], "ProductName"),
        ("query", ["search_term", "text"], "search_term"),
        ("label", ["id", "Relevance", "rating"], "rating"),
        ("title", ["titel"], "titel"),
        ("title", ["subtitles", "tilt"], ""),
        ("query", ["price", "brand"], ""),
    ],
)
def test_the_nearest_column_has_the_word_or_is_spelt_nearly_so(
    name: str, columns: list[str], found: str
) -> None:
    assert nearest(name, columns) == found


def test_a_missing_column_is_asked_for_by_the_flag_of_a_near_one() -> None:
    flags = {"--title": ("title",), "--query": ("query",)}
    wanted = Wanted(("query", "title"), "map them", flags=flags)
    with pytest.raises(
        UserError, match=r"has query, product_title: perhaps --title=product_title$"
    ):
        wanted.check(epath.Path("pairs.csv"), ["query", "product_title"])
    with pytest.raises(UserError, match=r"it has query, price: name it with --title=COLUMN$"):
        wanted.check(epath.Path("pairs.csv"), ["query", "price"])
