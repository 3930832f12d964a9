import pytest

from sie_jax.serving import scoring


@pytest.mark.parametrize(
    ("max_length", "boundaries"),
    [(8, (8,)), (16, (16,)), (17, (16, 17)), (64, (16, 32, 64)), (100, (16, 32, 64, 100))],
)
def test_boundaries_double_up_to_the_greatest_length(
    max_length: int, boundaries: tuple[int, ...]
) -> None:
    assert scoring._boundaries(max_length) == boundaries
