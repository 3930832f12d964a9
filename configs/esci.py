"""python train.py --config=configs/esci.py --config.data.path=DATA --config.model.pretrained=BERT

DATA holds the two files of the Shopping Queries data set (ESCI), and BERT is a Hugging Face folder.
The sample of 6,678 judgments with MiniLM-L6 took 74 minutes on 2 busy CPU cores. nDCG@10 was 0.575
with uniform weights, 0.577 with clipped and 0.559 with proportional ones; no difference is shown
(benchmarks/results/esci.json).
"""

from sie_jax.config import Config


def get_config() -> Config:
    config = Config(name="esci")
    config.data.source = "esci"
    config.data.max_length = 64
    config.data.buckets = 5
    config.train.batch_size = 16
    config.train.learning_rate = 1e-4  # the best of three on validation queries: benchmarks/tune.py
    config.train.epochs = 3
    config.train.seeds = 3
    config.train.checkpoint_every = 50
    config.importance.policy = "clipped"
    config.importance.compare = ("proportional",)
    return config
