"""python train.py --config=configs/conversation.py

Chats of the generated shop's customers: a search is asked with those turns and words that are not
expected to do harm. nDCG@10 is 0.46 with all turns and 0.54 with these words
(benchmarks/results/conversing.json). Words alone search, unless --config.chain=runs/chain/model
names a chain (configs/chain.py). It takes half a minute on 2 CPU cores, and needs the extra
`retrieval`: pip install -e '.[retrieval]'. Intents are learnt where --config.intents.path names a
table.
"""

from sie_jax.config import ConversationConfig


def get_config() -> ConversationConfig:
    config = ConversationConfig(name="conversation")
    config.data.market.items = 3000
    config.data.market.queries = 1500
    return config
