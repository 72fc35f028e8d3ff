"""Posteriors of θ′ as tensors and facts, and back: what a saved process is without its data."""

from dataclasses import asdict
from typing import Any

from torch import Tensor

from pipeline.gp.function_space import FunctionSpace
from pipeline.gp.laplace import FunctionSpaceLaplace, ParameterSpaceLaplace, Search
from pipeline.gp.parameter_space import ParameterSpace
from pipeline.gp.variational import MeanField
from pipeline.gp.weight_posterior import WeightPosterior, exact_weights
from pipeline.types import InputError


def posterior_tensors(posterior: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What :func:`posterior_of` needs; function space becomes a Gaussian over θ′, exactly."""
    if isinstance(posterior, FunctionSpace):
        posterior = exact_weights(posterior)
    if isinstance(posterior, FunctionSpaceLaplace):
        posterior = posterior.weight_posterior()
    match posterior:
        case WeightPosterior(mean_weights, outputscale, directions):
            tensors = {"mean_weights": mean_weights, "directions": directions}
            return tensors, {"kind": "weights", "outputscale": outputscale}
        case ParameterSpace(precision, moment, factor, outputscale, fit):
            tensors = {"precision": precision, "moment": moment, "factor": factor}
            return tensors, {"kind": "parameter_space", "outputscale": outputscale, "fit": fit}
        case ParameterSpaceLaplace(map_weights, outputscale, factor, search):
            tensors = {"map_weights": map_weights, "factor": factor}
            facts = {"outputscale": outputscale, "search": asdict(search)}
            return tensors, {"kind": "laplace", **facts}
        case MeanField(mean_weights, variances):
            return {"mean_weights": mean_weights, "variances": variances}, {"kind": "mean_field"}
    raise InputError(
        "this process is known by products with its training data only. Save "
        "gp.with_fast_variances(rank), which needs them no more."
    )


def posterior_of(tensors: dict[str, Tensor], facts: dict[str, Any]) -> Any:
    """The posterior again."""
    match facts["kind"]:
        case "weights":
            return WeightPosterior(
                tensors["mean_weights"], facts["outputscale"], tensors["directions"]
            )
        case "laplace":
            search = Search(**facts["search"])
            return ParameterSpaceLaplace(
                tensors["map_weights"], facts["outputscale"], tensors["factor"], search
            )
        case "mean_field":
            return MeanField(tensors["mean_weights"], tensors["variances"])
    precision, moment, factor = (tensors[name] for name in ("precision", "moment", "factor"))
    return ParameterSpace(precision, moment, factor, facts["outputscale"], facts["fit"])
