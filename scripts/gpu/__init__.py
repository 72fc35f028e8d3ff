"""The parts of ``gpu_check``: each gives the rows of its table."""
