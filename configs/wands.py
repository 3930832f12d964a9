"""python train.py --config=configs/wands.py --config.data.path=DATA --config.model.pretrained=BERT

DATA holds query.csv, product.csv and label.csv of the Wayfair Annotation Dataset (WANDS), which are
in the folder `dataset` of github.com/wayfair/WANDS. BERT is a Hugging Face folder. There is no
measured time or result, because the full data set of 233,448 judgments was not run here. The
settings are those of configs/esci.py with one seed, and were not tuned for it.
"""

from sie_jax.config import Config


def get_config() -> Config:
    config = Config(name="wands")
    config.data.source = "wands"
    config.data.max_length = 64
    config.data.buckets = 5
    config.train.batch_size = 16
    config.train.learning_rate = 1e-4
    config.train.epochs = 3
    config.importance.policy = "clipped"
    config.importance.compare = ("proportional",)
    return config
