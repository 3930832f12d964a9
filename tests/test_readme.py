"""What the README shows is what runs."""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from sie_jax.config import Config, as_json, flat

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_library_example_runs_and_its_update_is_the_weighted_gradient(capsys) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict = {}
    exec(code, names)
    assert "w" in capsys.readouterr().out
    weights, gradients = names["weights"], names["grads"].materialize()
    for name, update in names["update"].items():
        expected = jnp.einsum("b,b...->...", weights, gradients[name])
        # float32 sums of 32 terms in another order
        np.testing.assert_allclose(update, expected, rtol=1e-4, atol=1e-6)


def test_every_flag_it_names_is_a_field() -> None:
    named = set(re.findall(r"--config\.([a-z_.]+)", README))
    assert named
    assert named <= set(flat(as_json(Config())))
