"""python train.py --config=configs/table.py --config.data.path=FILE

A table of one's own with the columns query, title and label; docs/own_table.md says how to name
others. From random weights: give --config.model.pretrained=FOLDER to start from a BERT checkpoint,
and then --config.train.learning_rate=1e-4.
"""

from sie_jax.config import Config


def get_config() -> Config:
    config = Config(name="table")
    config.data.source = "table"
    config.data.max_length = 64
    return config
