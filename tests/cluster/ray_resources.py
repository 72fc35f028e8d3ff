"""RayJob as KubeRay 1.5 and later take it: the fields that the launch files use, no others.

Written after the reference of ``ray.io/v1`` in Ray's documentation. Pod templates are checked
against Kubernetes' own schemas. ``rayjob.yaml`` also passed the operator's own schema with unknown
fields refused (KubeRay feeaf72, August 2026); at 1.4 MB that is not kept here.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(Strict):
    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=47)
    namespace: str
    labels: dict[str, str] = {}


class AuthOptions(Strict):
    mode: Literal["disabled", "token"]


class HeadGroupSpec(Strict):
    rayStartParams: dict[str, str]  # noqa: N815
    template: dict[str, Any]


class WorkerGroupSpec(HeadGroupSpec):
    groupName: str  # noqa: N815
    replicas: int = Field(ge=0)
    minReplicas: int = Field(ge=0)  # noqa: N815
    maxReplicas: int = Field(ge=0)  # noqa: N815


class RayClusterSpec(Strict):
    rayVersion: str  # noqa: N815
    authOptions: AuthOptions  # noqa: N815
    headGroupSpec: HeadGroupSpec  # noqa: N815
    workerGroupSpecs: list[WorkerGroupSpec]  # noqa: N815


class RayJobSpec(Strict):
    entrypoint: str
    backoffLimit: int = Field(ge=0)  # noqa: N815
    activeDeadlineSeconds: int = Field(gt=0)  # noqa: N815
    shutdownAfterJobFinishes: bool  # noqa: N815
    ttlSecondsAfterFinished: int = Field(ge=0)  # noqa: N815
    rayClusterSpec: RayClusterSpec  # noqa: N815


class RayJob(Strict):
    apiVersion: Literal["ray.io/v1"]  # noqa: N815
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: RayJobSpec
