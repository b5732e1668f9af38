"""Reinforcement learning's mathematics as pure functions over tensors.

Imports nothing else of this package.
"""
