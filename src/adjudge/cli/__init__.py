"""The command line: one thin file per verb. Heavy imports are inside the verb that needs them."""
