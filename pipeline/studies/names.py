"""Every study by the name of its command, which is the name of its file."""

STUDIES: dict[str, str] = {
    "active": "Accuracy over labels for every acquisition rule.",
    "influence": "Which training samples made a run's predictions, and removing groups of them.",
}
"""What each says in one sentence; the file itself is imported when its command runs."""
