"""How a judge leaves the run folder."""
