"""The small shop is prepared once for this folder's tests."""

from small_shop import shop

__all__ = ["shop"]
