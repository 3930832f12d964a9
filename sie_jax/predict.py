"""Scores pairs: `python -m sie_jax.predict --model=W/model --input=FILE --output=FILE`."""

from sie_jax.commands import predict, process

if __name__ == "__main__":
    process.main(predict.entry)
