"""python train.py --config=configs/click_log.py --config.data.path=PATH

Grades from a log of impressions and clicks; docs/click_logs.md says what it must hold. From random
weights: give --config.model.pretrained=FOLDER to start from a BERT checkpoint, and then
--config.train.learning_rate=1e-4.
"""

from sie_jax.config import Config


def get_config() -> Config:
    config = Config(name="clicks")
    config.data.source = "clicks"
    config.data.max_length = 64
    return config
