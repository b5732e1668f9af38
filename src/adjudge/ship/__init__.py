"""A judge leaves the machine: exported, published, served."""
