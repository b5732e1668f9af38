"""Speed and memory of adjudge beside its peers, its share of the machine's own rate, and how both grow."""
