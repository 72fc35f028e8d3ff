"""Every family on one page: which options a config may hold, and what builds each of them.

A new backbone, benchmark or sketch is one import and one line here.
"""

import re
from collections.abc import Callable, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipeline.baselines import (
    augmented_probe,
    finetune,
    linear_probe,
    lp_ft,
    ridge_probe,
    scratch,
)
from pipeline.config import Options, Seed, apply_overrides, expand_environment, read_yaml, validated
from pipeline.data import (
    array_archive,
    breeds,
    cifar10_shifts,
    cifar100,
    cifar100_superclasses,
    digits,
    image_folders,
    living17,
    table,
    text_table,
    tiny_imagenet_superclasses,
)
from pipeline.data.split import Benchmark
from pipeline.distributed.options import ExecutorOptions
from pipeline.models import (
    cifar_resnet,
    factory,
    lenet,
    resnet,
    small_cnn,
    squeezenet,
    transformers,
)
from pipeline.models.head import chosen_head
from pipeline.models.network import Network
from pipeline.planner import LimitsOptions
from pipeline.sketch.make import SKETCH_KINDS
from pipeline.store.place import as_location

Family = tuple[type[Options], Callable[[Any], Any]]

MODELS: dict[str, Family] = {
    "resnet": (resnet.ResNetOptions, resnet.build),
    "cifar_resnet": (cifar_resnet.CifarResNetOptions, cifar_resnet.build),
    "squeezenet": (squeezenet.SqueezeNetOptions, squeezenet.build),
    "small_cnn": (small_cnn.SmallCNNOptions, small_cnn.build),
    "lenet": (lenet.LeNetOptions, lenet.build),
    "transformers": (transformers.TransformersOptions, transformers.build),
    "factory": (factory.FactoryOptions, factory.build),
}
"""Backbone families: options, and what builds a Network from them."""

BENCHMARKS: dict[str, Family] = {
    "digits": (digits.DigitsOptions, digits.build),
    "cifar100": (cifar100.Cifar100Options, cifar100.build),
    "cifar100_superclasses": (
        cifar100_superclasses.Cifar100SuperclassesOptions,
        cifar100_superclasses.build,
    ),
    "living17": (living17.Living17Options, living17.build),
    "breeds": (breeds.BreedsOptions, breeds.build),
    "cifar10_shifts": (cifar10_shifts.Cifar10ShiftsOptions, cifar10_shifts.build),
    "tiny_imagenet_superclasses": (
        tiny_imagenet_superclasses.TinyImagenetSuperclassesOptions,
        tiny_imagenet_superclasses.build,
    ),
    "image_folders": (image_folders.ImageFoldersOptions, image_folders.build),
    "table": (table.TableOptions, table.build),
    "text_table": (text_table.TextTableOptions, text_table.build),
    "arrays": (array_archive.ArraysOptions, array_archive.build),
}
"""Benchmark families: options, and what builds a Benchmark from them."""

PROBES: dict[str, type[Options]] = {
    "linear_probe": linear_probe.LinearProbeOptions,
    "linear_probe_ridge": ridge_probe.RidgeProbeOptions,
    "linear_probe_augmented": augmented_probe.AugmentedProbeOptions,
}
"""Baselines that read activations."""

TRAINED: dict[str, type[Options]] = {
    "finetune": finetune.FinetuneOptions,
    "scratch": scratch.ScratchOptions,
    "lp_ft": lp_ft.LpFtOptions,
}
"""Baselines that train the network."""


def _one_of(models: Sequence[type[Options]]) -> Any:
    """The union of option models that their ``kind`` tells apart."""
    if len(models) == 1:
        return models[0]
    return Annotated[reduce(or_, models), Field(discriminator="kind")]


def _named(value: Any) -> Any:
    """A bare name as the mapping that it abbreviates."""
    return {"kind": value} if isinstance(value, str) else value


def _uniform_unless_named(sketch: Any) -> Any:
    """A sketch's options with the kind that is meant where none is given."""
    return {"kind": "uniform", **sketch} if isinstance(sketch, dict) else sketch


def _distinct(baselines: tuple[Any, ...]) -> tuple[Any, ...]:
    """The baselines, unless two are of one kind: a kind has one place in a run's folder."""
    kinds = [options.kind for options in baselines]
    twice = sorted({kind for kind in kinds if kinds.count(kind) > 1})
    if twice:
        raise ValueError(f"named twice: {', '.join(twice)}; give the second a run of its own")
    return baselines


def _folder_name(name: str) -> str:
    """The name, unless it is none of a folder inside runs/."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError("expected letters, digits, '.', '-' and '_', a letter or digit first")
    return name


if TYPE_CHECKING:
    # Unions made from the tables above: known to pydantic, not to a type checker.
    ModelOptions = Any
    BenchmarkOptions = Any
    SketchOptions = Any
    BaselineOptions = Any
else:
    ModelOptions = _one_of([options for options, _ in MODELS.values()])
    BenchmarkOptions = _one_of([options for options, _ in BENCHMARKS.values()])
    SketchOptions = Annotated[
        _one_of([options for options, _ in SKETCH_KINDS.values()]),
        BeforeValidator(_uniform_unless_named),
    ]
    BaselineOptions = Annotated[
        _one_of([*PROBES.values(), *TRAINED.values()]), BeforeValidator(_named)
    ]


Ridge = Annotated[float, Field(ge=0)]


class FeaturesOptions(Options):
    """How the per-sample gradients are computed and stored."""

    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    """Type in the store, after one power-of-two scale."""
    compute_dtype: Literal["float32", "tf32", "bfloat16", "float64"] = "float32"
    """Arithmetic of the forward and backward pass; bfloat16 is autocast."""
    output: int | Literal["sum", "random_direction"] = 0
    """The scalar that is differentiated: a logit, their sum / √k, or a random unit direction."""
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Samples per forward and backward pass; auto takes it from the memory limit."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where features are computed; auto is cuda where the workers have one."""


class KernelOptions(Options):
    """How K is formed from the features."""

    center: bool = False
    """Subtract the mean training feature, in kernel form."""
    normalize: bool = False
    """Divide every feature row by its length."""
    sizes: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Further kernels from the first columns only, for accuracy over p; uniform sketches only."""


class SolverOptions(Options):
    """Kernel ridge regression over the whole regularization path."""

    kind: Literal["auto", "nesterov", "cg", "lanczos", "cholesky", "eigh"] = "auto"
    """How the systems are solved; auto chooses from n, k and the path's length, and says why."""
    ridge: Literal["telescopic"] | Ridge | Annotated[tuple[Ridge, ...], Field(min_length=1)] = (
        "telescopic"
    )
    """Coarse-to-fine search on the selection split, one value, or a list to choose from."""
    ridge_scale: Literal["trace", "absolute"] = "trace"
    """Unit of the ridge: the mean of K's diagonal, or 1."""
    tol: float = Field(default=1e-6, gt=0)
    """Relative residual at which a solution counts as converged."""
    max_iterations: int = Field(default=1000, ge=1, le=1_000_000)
    """Length of the early-stopping curve, in Nesterov steps."""


class GPOptions(Options):
    """The same kernel as a Gaussian process: calibrated probabilities, or intervals.

    Classes are regressed on Dirichlet labels, the outputscale by marginal likelihood and the
    concentration by the selection split's NLL; real targets have a Gaussian noise.
    """

    concentrations: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (
        1e-4,
        1e-3,
        1e-2,
    )
    """What every class has before a label is seen, to choose from."""
    draws: int = Field(default=1_000, ge=2)
    """Of the logits, for a sample's probabilities."""
    seed: Seed = 0
    """Of the draws."""


class OutsideSpanOptions(Options):
    """Accuracy by how far a test row's features lie outside the span of the training rows'."""

    tolerance: float = Field(default=1e-6, ge=0, lt=1)
    """Eigenvalues of K up to this share of the largest count as zero: float32's rounding of K."""
    groups: int = Field(default=5, ge=1)
    """Groups of test rows, equal in size, from the least outside to the most."""


DECOMPOSING = ("gp", "outside_span")
"""Keys that decompose K into all its eigenvectors, for which it lies in memory."""


class StoreOptions(Options):
    """Where features are kept."""

    root: Annotated[Path | str, BeforeValidator(as_location)] = Path("runs/cache")
    """Folder of the feature cache, shared by all runs, or a URL (``s3://bucket/prefix``)."""
    compression: Literal["none", "lz4"] = "none"
    """lz4 with bit shuffling halves the bytes of ReLU networks and reads more slowly."""


class PretrainOptions(Options):
    """Train the backbone on the benchmark's ``pretrain`` split first (Adam, cross-entropy)."""

    epochs: int = Field(default=30, ge=1)
    """Passes over the split."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Adam's step size."""
    batch_size: int = Field(default=64, ge=1)
    """Images per step."""
    seed: Seed = 0
    """Seed of the initial weights and of the order."""


class VariantOptions(Options):
    """A further kernel machine in the table of the same run; it shares all that does not change."""

    set: tuple[str, ...] = ()
    """Overrides of model, sketch, features, kernel and solver, as ``--set`` takes them."""
    heads: tuple[Seed, ...] = ()
    """Seeds of random heads whose machines' scores are averaged: an ensemble."""
    probe_head: bool = False
    """Differentiate the network under the linear probe's head instead of a random one."""
    rows: int | None = Field(default=None, ge=2)
    """Fit the run's own kernel on its first so many training rows: no new features."""
    penultimate: float | None = Field(default=None, gt=0)
    """Add the penultimate activations' kernel with this weight, both with a mean diagonal of 1."""

    @model_validator(mode="after")
    def _one_idea(self) -> Self:
        other = [key for key in self.set if not VARIED.match(key)]
        if other:
            raise ValueError(
                f"{other[0]}: a variant changes model, sketch, features, kernel or solver alone"
            )
        asked = [self.heads, self.probe_head, self.rows, self.penultimate]
        if sum(bool(each) for each in asked) > 1:
            raise ValueError("give one of heads, probe_head, rows and penultimate")
        if self.set and (self.rows or self.penultimate):
            raise ValueError("rows and penultimate take the run's own kernel: leave out set")
        return self

    @property
    def own_features(self) -> bool:
        """Whether it needs features other than the run's."""
        return self.rows is None and self.penultimate is None


VARIED = re.compile(r"(model|sketch|features|kernel|solver)[.=]")


class RunConfig(Options):
    """One run: every key has a default but ``benchmark`` and ``model``."""

    name: Annotated[str, AfterValidator(_folder_name)] = "run"
    """Name of the run's folder under runs/."""
    benchmark: BenchmarkOptions
    """The splits: training rows, validation, ID test and the shifts."""
    model: ModelOptions
    """The pretrained network whose gradients are the features."""
    pretrain: PretrainOptions | None = None
    sketch: SketchOptions = SKETCH_KINDS["uniform"][0]()
    """Which parameters' gradients are kept, or how they are mixed."""
    features: FeaturesOptions = FeaturesOptions()
    kernel: KernelOptions = KernelOptions()
    solver: SolverOptions = SolverOptions()
    baselines: Annotated[tuple[BaselineOptions, ...], AfterValidator(_distinct)] = ()
    """What the kernel machine is compared with: names, or mappings with options."""
    variants: dict[Annotated[str, AfterValidator(_folder_name)], VariantOptions] = Field(
        default_factory=dict
    )
    """Further kernel machines by name: another sketch, an ensemble over heads, fewer rows."""
    gp: GPOptions | None = None
    """A Gaussian process on the same kernel as one more row; null for none, {} for the defaults."""
    outside_span: OutsideSpanOptions | None = None
    """Accuracy by the share of a test row outside the training span; {} for the defaults."""
    selection: Literal["val", "id_test"] = "val"
    """Split on which ridge and stopping time are chosen; id_test is the papers' protocol."""
    refit: bool = False
    """Fit once more on training and selection rows at the chosen point (needs selection: val)."""
    executor: ExecutorOptions = ExecutorOptions()
    limits: LimitsOptions = LimitsOptions()
    store: StoreOptions = StoreOptions()

    @model_validator(mode="after")
    def _values_meet(self) -> Self:
        if self.pretrain is not None and self.model.weights is not None:
            raise ValueError(
                "pretrain trains the weights that model.weights would load: give one of them"
            )
        if self.refit and self.selection != "val":
            raise ValueError("refit needs selection: val, rows that are not tested on")
        if self.refit and self.kernel.center:
            raise ValueError("refit and kernel.center exclude each other: the mean row differs")
        taken = {"entk", "entk_early_stopping", "entk_gp", *PROBES, *TRAINED} & set(self.variants)
        if taken:
            raise ValueError(f"variants need names of their own, not {', '.join(sorted(taken))}")
        for key in DECOMPOSING:
            if getattr(self, key) is not None and self.refit:
                raise ValueError(f"{key} and refit exclude each other: its rows are the training's")
        head = self.model.head
        output = self.features.output
        if head.kind == "random" and isinstance(output, int) and not 0 <= output < head.outputs:
            raise ValueError(
                f"features.output is logit {output}, the random head has {head.outputs}: "
                "raise model.head.outputs or ask for another"
            )
        return self


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The config in a file with ``--set`` overrides and environment variables put in."""
    values = expand_environment(apply_overrides(read_yaml(path), overrides))
    values.setdefault("name", re.sub(r"[^\w.-]+", "_", path.stem))
    return validated(RunConfig, values, str(path))


def variant_config(config: RunConfig, overrides: Sequence[str], name: str) -> RunConfig:
    """The config of a variant's own features and kernel: no baselines, no further variants."""
    values = apply_overrides(config.model_dump(mode="json"), overrides)
    values |= {"baselines": [], "variants": {}}
    # Kernels of fewer columns belong to the run's own figure.
    values["kernel"]["sizes"] = []
    return validated(RunConfig, values, f"variants.{name}")


def build_backbone(options: Any) -> Network:
    """The pretrained network of a config's ``model``, with its own head."""
    network: Network = MODELS[options.kind][1](options)
    return network


def build_network(options: Any) -> Network:
    """The network that is differentiated: the backbone with the head asked for."""
    return chosen_head(build_backbone(options), options.head)


def build_benchmark(options: Any) -> Benchmark:
    """The splits of a config's ``benchmark``."""
    benchmark: Benchmark = BENCHMARKS[options.kind][1](options)
    return benchmark
