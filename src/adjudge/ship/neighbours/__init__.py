"""Our tasks as tasks of other evaluation programs: the same rows, asked and scored as here."""
