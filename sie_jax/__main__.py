"""`python -m sie_jax COMMAND`, the same as `sie-jax COMMAND`."""

from sie_jax.commands import main

if __name__ == "__main__":
    main.main()
