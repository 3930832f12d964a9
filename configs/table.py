"""python train.py --config=configs/table.py --config.data.path=FILE

Trains on your own table with the columns query, title and label; docs/own_table.md says how to name
other columns. The weights are random. To start from a BERT checkpoint give
--config.model.pretrained=FOLDER and --config.train.learning_rate=1e-4.
"""

from sie_jax.config import Config


def get_config() -> Config:
    config = Config(name="table")
    config.data.source = "table"
    config.data.max_length = 64
    # The exported ranker is chosen, and the stack fitted, on all training queries out of fold.
    # Above some 20,000 pairs 0 is enough: it takes the validation queries, and less time.
    config.train.folds = 5
    return config
