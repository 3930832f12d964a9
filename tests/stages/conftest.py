from compiling import compile_quickly

__all__ = ["compile_quickly"]
