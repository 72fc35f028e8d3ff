"""The road that the plan chose: the kernel's algebra in this process or over workers."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from pipeline.planner import Plan
from pipeline.stages.job import Job
from pipeline.stages.views import KernelView, ViewSpec, open_view
from pipeline.store import FeatureStore
from pipeline.store.place import Location, absolute

if TYPE_CHECKING:
    from pipeline.distributed.ray_group import RayGroup


class KernelRoad:
    """Runs functions of a kernel's view; workers start with the first that needs them."""

    def __init__(self, job: Job, stores: Mapping[str, Location], plan: Plan) -> None:
        self.plan = plan
        self.stores = stores
        self.spec = view_spec(job, stores, plan)
        self.workers = plan.road.workers
        self._address = job.config.executor.address
        self._log_folder = job.folder.path.absolute() / "logs"
        self._group: RayGroup | None = None
        self._view: KernelView | None = None
        self._work: Counter[str] = Counter()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """``function(view, *arguments)`` here or on every worker at once; the first's result."""
        call = (function, arguments)
        if self.workers > 1:
            result, work = self._started().call(applied, call)
        else:
            self._view = self._view or open_view(self.spec)
            result, work = applied(self._view, call)
        self._work.update(work)
        return result

    def take_work(self) -> dict[str, int]:
        """Products and bytes sent since this was last asked, for a stage's record."""
        work, self._work = self._work, Counter()
        return dict(work)

    def close(self) -> None:
        """End the workers."""
        if self._group is not None:
            self._group.close()
            self._group = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _started(self) -> "RayGroup":
        if self._group is None:
            from pipeline.distributed.ray_group import RayGroup

            self._group = RayGroup(
                workers=self.workers,
                threads=self.plan.threads,
                address=self._address,
                gpus_per_worker=self.plan.gpus_per_worker,
                log_folder=self._log_folder,
            )
            self._group.prepare(open_view, self.spec)
        return self._group


def applied(view: KernelView, call: tuple[Callable[..., Any], tuple[Any, ...]]) -> Any:
    """A function's result on a view, and the work that it took."""
    function, arguments = call
    return function(view, *arguments), view.take_work()


def view_spec(job: Job, stores: Mapping[str, Location], plan: Plan) -> ViewSpec:
    """What a process needs to know to see the kernel."""
    return ViewSpec(
        road=plan.strategy,
        kernel=job.folder.kernel.absolute(),
        stores={name: absolute(path) for name, path in stores.items()},
        sizes={name: FeatureStore.open(path).shape[0] for name, path in stores.items()},
        fitted=("train", job.config.selection) if job.config.refit else ("train",),
        resident=plan.road.solve_disk_bytes == 0,
    )
