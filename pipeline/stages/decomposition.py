"""What decomposes K into all its eigenvectors is refused before any work where memory is short."""

from pipeline.planner import Plan
from pipeline.planner.solving import EIGH_MATRICES, FLOAT64
from pipeline.planner.units import bytes_text
from pipeline.registry import DECOMPOSING
from pipeline.stages.job import Job
from pipeline.types import InputError


def refuse_large_decomposition(job: Job, plan: Plan) -> None:
    """Refuse the keys of the config whose eigendecomposition of K does not fit into memory."""
    needed = EIGH_MATRICES * len(job.split("train")) ** 2 * FLOAT64
    for key in DECOMPOSING:
        if getattr(job.config, key) is not None and needed > plan.algebra_bytes:
            raise InputError(
                f"{key} decomposes K, which takes {bytes_text(needed)}; "
                f"{bytes_text(plan.algebra_bytes)} are left for the algebra. Raise limits.memory, "
                f"lower benchmark.limit.train, or leave {key} out.",
                key,
            )
