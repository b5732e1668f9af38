"""Measure adjudge's speed and memory against its peers and the machine's rate, and how both grow."""
