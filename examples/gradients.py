"""What each example contributes to an update, in the backward pass that makes it.

python examples/gradients.py
"""

import jax
import jax.numpy as jnp

from sie_jax import per_example


def loss_fn(params, example):
    """The loss of ONE example."""
    hidden = jnp.tanh(example["x"] @ params["w"] + params["b"])
    return jnp.sum((hidden - example["y"]) ** 2)


def main() -> None:
    keys = jax.random.split(jax.random.key(0), 2)
    params = {"w": jax.random.normal(keys[0], (8, 4)), "b": jnp.zeros(4)}
    batch = {"x": jax.random.normal(keys[1], (32, 8)), "y": jnp.zeros((32, 4))}

    losses, grads = per_example.value_and_grad(loss_fn)(params, batch)
    norms = grads.norms()  # [32], ‖∇ℓ_i‖
    update = grads.weighted_sum(jnp.minimum(1, 1 / norms) / 32)  # like params, each clipped to 1
    agreement = grads.dot(update)  # [32], negative where an example pulls against the update

    first = jnp.argsort(-norms)[:3]
    print("example   loss   norm   with the update")
    for one in first:
        print(f"{one:7} {losses[one]:6.2f} {norms[one]:6.2f} {agreement[one]:17.2f}")
    print()
    print(per_example.explain(loss_fn, params, batch))


if __name__ == "__main__":
    main()
