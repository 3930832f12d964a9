"""The small shop is prepared once for this folder's tests, and its models are compiled quickly."""

from small_shop import assert_trees_equal, compile_quickly, console, shop

__all__ = ["assert_trees_equal", "compile_quickly", "console", "shop"]
