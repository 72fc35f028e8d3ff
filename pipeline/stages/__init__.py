"""One file a stage: each reads finished artefacts, writes one, and is skipped when it exists."""
