"""A generated shop whose words have to be learnt: what a query says is often not in the title."""

from sie_jax.data.sources.market.market import Market, MarketConfig, Truth, generate

__all__ = ["Market", "MarketConfig", "Truth", "generate"]
