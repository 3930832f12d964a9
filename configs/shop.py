"""python train.py --config=configs/shop.py

The generated shop of words, `synthetic`, with 20 % wrong labels, and a BERT of 0.2 M parameters
from random weights. Words alone solve this shop, so it says nothing of rankers: it is what the
benchmarks of estimators, policies and wrong labels were measured on. BM25 reaches 0.96 there,
uniform training 0.79; it takes about three minutes on 2 CPU cores.
"""

from sie_jax.config import Config


def get_config() -> Config:
    config = Config(name="shop")
    config.data.synthetic.queries = 1500
    config.data.synthetic.seed = 1  # the settings below were chosen on the shop of seed 0
    config.model.hidden_size = 64
    config.model.num_attention_heads = 2
    config.model.intermediate_size = 128
    config.model.dropout = 0.0  # far from overfitting in four epochs, and slower to learn with it
    config.pretrain.steps = 1000
    config.pretrain.learning_rate = 3e-3
    config.pretrain.evaluate_every = 250
    config.train.learning_rate = 2e-3
    config.train.epochs = 4
    return config
