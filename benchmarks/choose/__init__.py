"""Measured experiments behind the pages docs/choose.md and docs/results: where reinforcement wins, and where not."""
