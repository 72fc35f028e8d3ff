"""Every study by the name of its command, which is the name of its file."""

STUDIES: dict[str, str] = {
    "active": "Accuracy over labels for every acquisition rule.",
    "around_network": "Kernel regression around a network against training the network itself.",
    "distillation": "Filter-KD beside one-hot training, smoothing and other teachers.",
    "head_preparation": "How long to probe a head before fine-tuning: energy, direction, change.",
    "influence": "Which training samples made a run's predictions, and removing groups of them.",
    "learning_path": "First-order steps against real ones, and whole paths on the simplex.",
    "lookahead": "Look-ahead scores against one SGD step and against retraining on each candidate.",
    "pseudo_kernel": "Pseudo-NTK against the full eNTK over networks, widths and training.",
    "similarity": "How alike networks are: parameter cosine, kernel alignment, Task2Vec.",
    "transfer": "A ranking of backbones for one task before any is fine-tuned.",
}
"""What each says in one sentence; the file itself is imported when its command runs."""
