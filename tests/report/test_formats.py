import pytest

from sie_jax.report import formats


@pytest.mark.parametrize(
    ("form", "number", "shown"),
    [
        (formats.value, 0.12345, "0.1235"),
        (formats.value, -2, "−2.0000"),
        (formats.value, None, "–"),
        (formats.value, float("nan"), "–"),
        (formats.signed, 0.5, "+0.5000"),
        (formats.signed, -0.5, "−0.5000"),
        (formats.whole, 1234567.4, "1,234,567"),
        (formats.seconds, 1234.56, "1,234.6"),
    ],
)
def test_numbers(form, number, shown):
    assert form(number) == shown


def test_bounds():
    entry = {"value": 0.25, "low": -0.5, "high": 1}
    assert formats.bounds(entry) == "−0.5000 to 1.0000"
    assert formats.bounds(entry, signed=True) == "−0.5000 to +1.0000"
    assert formats.bounds(entry | {"high": None}) == "no interval"
