"""The report of a run, from its finished artefacts alone."""
