"""Every study by the name of its command, which is the name of its file."""

STUDIES: dict[str, str] = {
    "active": "Accuracy over labels for every acquisition rule.",
    "around_network": "Kernel regression around a network against training the network itself.",
    "distillation": "Filter-KD beside one-hot training, smoothing and other teachers.",
    "full_data": "Regression on a whole data set by the pseudo-NTK alone, over width, beside SGD.",
    "head_preparation": "How long to probe a head before fine-tuning: energy, direction, change.",
    "inductive_bias": "What linearized one-dimensional networks believe between their data.",
    "influence": "Which training samples made a run's predictions, and removing groups of them.",
    "learning_path": "First-order steps against real ones, and whole paths on the simplex.",
    "linearized_depth": "Classes from an encoder without labels, by how many layers move.",
    "linearized_networks": "Networks beside their linearizations: accuracy, NLL, ECE.",
    "lookahead": "Look-ahead scores against one SGD step and against retraining on each candidate.",
    "malaria": "Malaria rates: one survey's network carried to another, over adaptation points.",
    "olivetti": "Rotation of faces: some people's network carried to others, over points.",
    "precipitation": "One station's year of precipitation carried to the others.",
    "pseudo_kernel": "Pseudo-NTK against the full eNTK over networks, widths and training.",
    "similarity": "How alike networks are: parameter cosine, kernel alignment, Task2Vec.",
    "sinusoids": "A network trained on one sinusoid carried to others, by every method.",
    "task_similarity": "How alike the Jacobians of networks of different tasks are.",
    "transfer": "A ranking of backbones for one task before any is fine-tuned.",
}
"""What each says in one sentence; the file itself is imported when its command runs."""
