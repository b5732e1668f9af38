"""adjudge: make a decoder-only language model judge text, and show fairly how well it does."""

__version__ = "0.1.0"
