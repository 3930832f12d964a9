"""python train.py --config=configs/reviews.py --config.data.path=PATH/Beauty.txt

Next items of Amazon's 5-core reviews (Beauty, Toys_and_Games), in the files and by the protocol of
S3-Rec and ICLRec: each user's last item is the test, the one before it validation, neither is
trained on, all items are ranked, and those of the history are left out. nDCG@5 is 0.046 on Beauty
and 0.053 on Toys (ICLRec: 0.033 and 0.040; benchmarks/results/recommending_beauty.json). A seed
takes about four minutes on 2 CPU cores.
"""

from sie_jax.config import RecommendationConfig


def get_config() -> RecommendationConfig:
    config = RecommendationConfig(name="reviews")
    config.data.source = "lines"
    config.data.repeats = False
    config.train.negatives = 1024
    config.train.epochs = 25
    return config
