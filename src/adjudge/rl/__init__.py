"""The mathematics of reinforcement learning as pure functions over tensors. Imports nothing else of this package."""
