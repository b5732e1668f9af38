"""Named sets of settings, as YAML."""
