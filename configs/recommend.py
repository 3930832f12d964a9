"""python train.py --config=configs/recommend.py

Recommendation from histories on the generated shop: what 2,000 customers bought, their last item
kept for the test. A causal transformer (SASRec) that knows items by their ids and by the words of
their titles, beside popularity, what is bought again, item neighbours, ALS and BPR. These customers
buy much again, and nothing in their order: nDCG@10 is 0.149 of `repeat` and of the blend that is
exported, 0.139 of the network alone. It takes a minute and a half on 2 CPU cores.
"""

from sie_jax.config import RecommendationConfig


def get_config() -> RecommendationConfig:
    config = RecommendationConfig(name="recommend")
    config.data.market.items = 3000
    config.model.text = "words"
    config.model.id_dropout = 0.1
    config.model.dropout = 0.3
    config.train.batch_size = 64
    config.train.buckets = 1
    config.train.epochs = 10
    return config
