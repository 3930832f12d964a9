"""python train.py --config=configs/click_log.py --config.data.path=PATH

Makes grades from a log of impressions and clicks; docs/click_logs.md says what the log must hold.
The weights are random. To start from a BERT checkpoint give --config.model.pretrained=FOLDER and
--config.train.learning_rate=1e-4.
"""

from sie_jax.config import Config


def get_config() -> Config:
    config = Config(name="clicks")
    config.data.source = "clicks"
    config.data.max_length = 64
    return config
