"""Studies with the instruments of ``pipeline.analyses``: one file a study, run from a config."""
