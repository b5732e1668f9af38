"""The command line: one thin file a verb. What is heavy is imported inside the verb that needs it."""
