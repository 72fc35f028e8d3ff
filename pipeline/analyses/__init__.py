"""The eNTK as an instrument: what the kernel tells about networks, samples and tasks."""
