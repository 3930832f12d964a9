import numpy as np
import pytest

from sie_jax.importance import explaining

N, M, D = 30, 7, 5


@pytest.fixture(scope="module")
def arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    training = generator.normal(size=(N, D)).astype(np.float32)
    targets = generator.normal(size=(M, D)).astype(np.float32)
    return training, generator.uniform(size=N).astype(np.float32), targets


def naive(training: np.ndarray, residuals: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """τ `[M, N]` one number at a time, with a dense inverse."""
    phi = training.astype(np.float64)
    kernel = sum(np.outer(row, row) for row in phi)
    inverse = np.linalg.inv(kernel + 0.1 * np.trace(kernel) / D * np.eye(D))
    return np.array([[z @ inverse @ phi[i] * residuals[i] for i in range(N)] for z in targets])


@pytest.mark.parametrize("entries", [1 << 24, 2 * N, 1])
def test_influence_is_traks_however_it_is_cut(arrays, entries, monkeypatch) -> None:
    monkeypatch.setattr(explaining, "MOST_ENTRIES", entries)
    influence = naive(*arrays)
    found = explaining.explain(*arrays, damping=0.1, top=4)
    for push, sign in zip(found, (1, -1), strict=True):
        wanted = np.argsort(-sign * influence, axis=1)[:, :4]
        np.testing.assert_array_equal(push.examples, wanted)
        # float64 but for the order of sums
        np.testing.assert_allclose(
            push.influence, np.take_along_axis(influence, wanted, 1), rtol=1e-9
        )


def test_ties_come_by_place(arrays) -> None:
    training, residuals, targets = (values.copy() for values in arrays)
    training[:], residuals[:] = training[0], 0.5
    found = explaining.explain(training, residuals, targets, damping=0.1, top=3)
    for push in found:
        np.testing.assert_array_equal(push.examples, np.tile([0, 1, 2], (M, 1)))
    values = np.array([1.0, 3.0, 2.0, 3.0, 2.0, 2.0])
    for number, wanted in ((1, [1]), (2, [1, 3]), (4, [1, 3, 2, 4]), (6, [1, 3, 2, 4, 5, 0])):
        assert explaining.first(values, number).tolist() == wanted


def test_more_than_there_are_gives_all(arrays) -> None:
    found = explaining.explain(*arrays, damping=0.1, top=N + 1)
    np.testing.assert_array_equal(found[0].examples, found[1].examples[:, ::-1])


def test_what_cannot_be_explained_is_named(arrays) -> None:
    training, residuals, targets = arrays
    broken = targets.copy()
    broken[2, 1] = np.nan
    for given, message in (
        ((training, residuals[1:], targets), r"give \[N, D\], \[N\] and \[M, D\]"),
        ((training, residuals, targets[:, 1:]), r"give \[N, D\], \[N\] and \[M, D\]"),
        ((training, residuals, broken), "the targets are not all finite"),
        ((training, residuals * np.inf, targets), "the residuals are not all finite"),
        ((training * 0, residuals, targets), "all 0"),
        ((training * np.nan, residuals, targets), "not all finite"),
    ):
        with pytest.raises(ValueError, match=message):
            explaining.explain(*given, damping=0.1, top=3)
    for damping, top in ((0.0, 3), (0.1, 0)):
        with pytest.raises(ValueError, match="give positive numbers"):
            explaining.explain(*arrays, damping=damping, top=top)
