"""python train.py --config=configs/chain.py

From a query to a short list on the generated shop: words and two towers find, a ranker of features
orders what they found, a small cross-encoder reads the first where that helps, and the list is made
diverse as far as that costs little. nDCG@10 is 0.50 by words, 0.59 by the towers, 0.62 by both and
0.70 by the chain (benchmarks/results/chaining_shop.json). It takes eight minutes on 2 CPU cores,
and needs the extra `retrieval`: pip install -e '.[retrieval]'.
"""

from sie_jax.config import ChainConfig


def get_config() -> ChainConfig:
    config = ChainConfig(name="chain")
    config.data.source = "market"
    config.data.market.items = 3000
    config.data.market.queries = 1500
    config.data.validation = 0.2
    config.model.num_hidden_layers = 1
    config.train.task = "contrastive"
    config.train.batch_size = 64
    config.train.epochs = 10
    config.cross.task = "listwise"
    config.cross.batch_size = 64
    config.cross.epochs = 3
    return config
