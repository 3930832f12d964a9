"""python train.py --config=configs/icecat.py --config.data.path=PATH/pairs.csv

A table of one's own, here the query-product pairs of an electronics shop that three people rated
(github.com/o19s/chorus, katas/), with folds for the audit and for the raters' disagreement. Give
--config.model.pretrained=FOLDER to start from a BERT checkpoint.
"""

from sie_jax.config import Config


def get_config() -> Config:
    config = Config(name="icecat")
    config.data.source = "table"
    config.data.columns.item_id = "product_id"
    config.data.columns.text = "description"
    config.data.table.attributes = ("brand",)
    config.data.table.raters = ("rating_1", "rating_2", "rating_3")
    config.data.max_length = 64
    config.model.dropout = 0.1
    config.train.learning_rate = 1e-4
    config.train.epochs = 3
    config.train.seeds = 3
    config.train.folds = 5
    config.importance.compare = ("proportional",)
    return config
