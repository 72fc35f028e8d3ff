"""Rotation of faces: a network of some people, carried to others over adaptation points."""

from pathlib import Path

from pydantic import Field

from pipeline.analyses.adaptation_curve import Carried, Descent, train_from_starts
from pipeline.analyses.rotated_faces import lenet_regressor, read_faces, rotated_faces
from pipeline.studies.adaptation import Target, adaptation_findings
from pipeline.studies.study import Findings, Positions, Sizes, Study, StudyOptions, Work

FURTHER = 100_000
"""From one start's seed to the next."""


class OlivettiOptions(StudyOptions):
    """The angle of rotated Olivetti faces (Maddox et al. 2021, figure 7)."""

    path: Path
    """olivettifaces.mat: ``faces`` (4096, 400)."""
    people: int = Field(default=20, ge=1)
    """The first people are the source; as many after them the target."""
    copies: int = Field(default=5, ge=1)
    """Angles of every source image; target images have one."""
    learning_rate: float = Field(default=1e-2, gt=0)
    """On the source, and of everything that descends on the target."""
    epochs: int = Field(default=60, ge=1)
    """On the source, in batches of 32."""
    test_copies: int = Field(default=2, ge=1)
    """Angles of every held-out image of the target."""
    points: Sizes = (10, 20, 40, 80)
    """Adaptation points."""
    sketch_size: int | None = Field(default=None, ge=1)
    """Parameters that the Gaussian processes keep; null for all."""
    methods: tuple[str, ...] = ("blind", "last_layer", "fine_tune", "finite_ntk", "network_gp")
    """What is compared."""
    seeds: Positions = (0, 1, 2)
    """Of angles, networks and points."""


def run(options: OlivettiOptions, work: Work) -> Findings:
    """Every method at every number of points; half of the target's people are held out."""
    faces = read_faces(options.path)
    half = options.people + max(options.people // 2, 1)

    def carry(seed: int) -> tuple[Carried, Target, Target]:
        source = rotated_faces(faces, slice(0, options.people), options.copies, seed)
        pool = rotated_faces(faces, slice(options.people, half), 1, seed + 1_000)
        last = max(2 * options.people, half + 1)
        test = rotated_faces(faces, slice(half, last), options.test_copies, seed + 2_000)
        descent = Descent(options.learning_rate, options.epochs, 32, seed=seed)
        carried = train_from_starts(
            lambda start: lenet_regressor(seed + FURTHER * start),
            source.x, source.y, descent, options.sketch_size,
        )  # fmt: skip
        return carried, (pool.x, pool.y), (test.x, test.y)

    unit = "deviations of the angle (8.7°)"
    return adaptation_findings(work, carry, options.points, options.methods, options.seeds, unit)


STUDY = Study(OlivettiOptions, run)
