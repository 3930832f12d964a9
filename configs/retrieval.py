"""python train.py --config=configs/retrieval.py

Finding items in the whole catalogue of the generated shop: BM25, two towers trained from random
weights on judged pairs, and both lists fused. Recall@100 is 0.82 by words, 0.94 by the towers and
0.95 by both (benchmarks/results/retrieving_shop.json). It takes six minutes on 2 CPU cores, and
needs the extra `retrieval`: pip install -e '.[retrieval]'.
"""

from sie_jax.config import RetrievalConfig


def get_config() -> RetrievalConfig:
    config = RetrievalConfig(name="retrieval")
    config.data.source = "market"
    config.data.market.items = 3000
    config.data.market.queries = 1500
    config.model.num_hidden_layers = 1
    config.train.task = "contrastive"
    config.train.batch_size = 64
    config.train.epochs = 10
    return config
