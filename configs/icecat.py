"""python train.py --config=configs/icecat.py --config.data.path=PATH/pairs.csv

An example of your own table: the query-product pairs of an electronics shop, each rated by three
people (github.com/o19s/chorus, katas/). Folds are for the audit and for the raters' disagreement.
To start from a BERT checkpoint give --config.model.pretrained=FOLDER. From MiniLM-L6, a seed took
155 s with uniform weights on 2 CPU cores. nDCG@10 was 0.862 with uniform weights, 0.846 with
clipped and 0.810 with proportional ones; no difference is shown (benchmarks/results/icecat.json).
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
