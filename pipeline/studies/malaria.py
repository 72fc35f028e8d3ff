"""Malaria rates over places: one survey's network, carried to another over adaptation points."""

from pydantic import Field

from pipeline.analyses.adaptation_curve import Carried, Descent, train_source
from pipeline.analyses.located_rates import TableOptions, read_places, tanh_network
from pipeline.studies.adaptation import Target, adaptation_findings
from pipeline.studies.study import Findings, Positions, Sizes, Study, StudyOptions, Work
from pipeline.types import InputError


class MalariaOptions(StudyOptions):
    """Rates regressed on longitude and latitude (Maddox et al. 2021, figure 7)."""

    data: TableOptions
    """A table of surveys, or a raster."""
    hidden: int = Field(default=500, ge=1)
    """Width of both layers of the tanh network."""
    epochs: int = Field(default=500, ge=5)
    """On the source, in batches of 200; the step 1e-3 falls to a tenth five times over them."""
    train: int = Field(default=2_000, ge=2)
    """Source rows at most."""
    test: int = Field(default=5_000, ge=2)
    """Held-out target rows at most; at least the adaptation points are left to draw from."""
    points: Sizes = (10, 30, 100, 300)
    """Adaptation points."""
    sketch_size: int | None = Field(default=20_000, ge=1)
    """Parameters that the Gaussian processes keep; null for all."""
    methods: tuple[str, ...] = (
        "blind", "last_layer", "last_layer_6x", "finite_ntk", "network_gp",
    )  # fmt: skip
    """What is compared."""
    seeds: Positions = (0, 1, 2)
    """Of rows, networks and points."""


def run(options: MalariaOptions, work: Work) -> Findings:
    """Every method at every number of points."""

    def carry(seed: int) -> tuple[Carried, Target, Target]:
        source, target = read_places(options.data, seed=seed)
        drawn = max(options.points)
        if len(target.x) <= drawn:
            raise InputError(
                f"the target has {len(target.x)} rows; {drawn} points leave none to test on.",
                "points",
            )
        kept, held = target.first(drawn), slice(drawn, drawn + options.test)
        descent = Descent(
            1e-3, options.epochs, 200, decay_every=max(options.epochs // 5, 1), seed=seed
        )
        network, rows = tanh_network(options.hidden, seed), source.first(options.train)
        parameters = sum(p.numel() for p in network.parameters())
        size = options.sketch_size and min(options.sketch_size, parameters)
        carried = train_source(network, rows.x, rows.y, descent, size)
        return carried, (kept.x, kept.y), (target.x[held], target.y[held])

    unit = "deviations of the source's rates"
    return adaptation_findings(work, carry, options.points, options.methods, options.seeds, unit)


STUDY = Study(MalariaOptions, run)
