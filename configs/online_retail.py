"""python train.py --config=configs/online_retail.py --config.data.path=online_retail_ii.parquet

Next baskets of a gift shop's customers (UCI Online Retail II, two years of invoices). The last two
months are the test, the two before them validation. Cancelled and returned goods are no purchases.
An item that was first sold after the split is found by the words of its description, and a customer
who came after it is known by his first basket.
"""

from sie_jax.config import RecommendationConfig


def get_config() -> RecommendationConfig:
    config = RecommendationConfig(name="online_retail")
    config.data.source = "interactions"
    config.data.columns.user = "customer_id"
    config.data.columns.item = "stock_code"
    config.data.columns.time = "invoice_date"
    config.data.columns.value = "quantity"
    config.data.columns.text = "description"
    config.data.columns.basket = "invoice"
    config.data.split = "temporal"
    config.data.validation_from = "2011-08-10"
    config.data.test_from = "2011-10-10"
    config.model.text = "words"
    config.model.id_dropout = 0.1
    config.model.gaps = True
    config.train.negatives = 512
    config.train.epochs = 8
    return config
