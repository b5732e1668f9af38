"""Smaller models: structured pruning."""
