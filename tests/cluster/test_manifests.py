"""Launch files are valid where they are sent, ask for tokens, set limits and hold no secret."""

import json
import re
from pathlib import Path

import pytest
from ray_resources import RayJob
from ruamel.yaml import YAML

from pipeline.schedule.options import load_registry

CLUSTER = Path(__file__).parents[2] / "cluster"
KUBERNETES = CLUSTER / "kubernetes"
OWN_KINDS = ("RayJob", "Kustomization")
VERSION = "1.34"

yaml = YAML(typ="safe", pure=True)


def documents() -> list[dict]:
    files = [file for file in sorted(KUBERNETES.glob("*.yaml")) if file.name != "registry.yaml"]
    return [document for file in files for document in yaml.load_all(file)]


def of_kind(kind: str) -> dict:
    (found,) = [document for document in documents() if document["kind"] == kind]
    return found


def pod_specs() -> dict[str, dict]:
    cluster = of_kind("RayJob")["spec"]["rayClusterSpec"]
    schedule = of_kind("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    workers = {g["groupName"]: g["template"]["spec"] for g in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"]["template"]["spec"], "schedule": schedule, **workers}


def containers() -> list[dict]:
    return [
        container
        for spec in pod_specs().values()
        for container in (*spec.get("initContainers", ()), *spec["containers"])
    ]


def test_kubernetes_own_schemas_accept_every_object_and_every_pod():
    published = pytest.importorskip("kubernetes_validate")
    for document in documents():
        if document["kind"] not in OWN_KINDS:
            published.validate(document, VERSION, strict=True)
    for name, spec in pod_specs().items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        published.validate(pod, VERSION, strict=True)


def test_the_rayjob_has_known_fields_of_the_right_types():
    RayJob.model_validate(of_kind("RayJob"))


def test_rays_own_schema_accepts_the_cluster_launchers_file():
    jsonschema = pytest.importorskip("jsonschema")
    ray = pytest.importorskip("ray")
    schema = Path(ray.__file__).parent / "autoscaler/ray-schema.json"
    config = yaml.load(CLUSTER / "ray/cluster.yaml")
    jsonschema.validate(config, json.loads(schema.read_text()))


def test_the_schedules_registry_is_one():
    assert load_registry(KUBERNETES / "registry.yaml").tasks()


def test_two_schedules_never_overlap():
    spec = of_kind("CronJob")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    # The pod outlives what it started, or Forbid would guard only the start.
    arguments = [" ".join(container["args"]) for container in containers() if "args" in container]
    name = of_kind("RayJob")["metadata"]["name"]
    assert any(text.startswith(f"wait rayjob/{name}") for text in arguments)
    deadline = spec["jobTemplate"]["spec"]["activeDeadlineSeconds"]
    assert deadline > of_kind("RayJob")["spec"]["activeDeadlineSeconds"]


def test_the_kustomization_makes_what_the_pods_mount():
    kustomization = of_kind("Kustomization")
    made = {entry["name"]: entry["files"] for entry in kustomization["configMapGenerator"]}
    listed = [*kustomization["resources"], *(f for files in made.values() for f in files)]
    assert sorted([*listed, "kustomization.yaml"]) == sorted(
        file.name for file in KUBERNETES.glob("*.yaml")
    )
    claim = of_kind("PersistentVolumeClaim")["metadata"]["name"]
    for spec in pod_specs().values():
        for volume in spec["volumes"]:
            assert volume.get("configMap", {}).get("name") in (None, *made)
            assert volume.get("persistentVolumeClaim", {}).get("claimName") in (None, claim)


def test_every_container_has_limits_and_no_right_that_it_does_not_need():
    for container in containers():
        assert set(container["resources"]["limits"]) >= {"cpu", "memory"}, container["name"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert re.search(r":v?\d+\.\d+\.\d+$", container["image"]), "images are pinned"
    for spec in pod_specs().values():
        assert spec["securityContext"]["runAsNonRoot"] is True


def test_rays_token_is_asked_for_in_every_launch_file():
    assert of_kind("RayJob")["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    launcher = yaml.load(CLUSTER / "ray/cluster.yaml")
    starts = [
        command
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in launcher[key]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    for name in ("slurm/ray.sbatch", "ray/submit.sh", "Dockerfile"):
        assert "RAY_AUTH_MODE=token" in (CLUSTER / name).read_text()
    for file in CLUSTER.rglob("*"):
        if file.is_file():
            assert not re.search(r"AUTH_MODE\W+disabled", file.read_text()), file


def test_the_dashboard_listens_on_loopback_or_behind_a_network_policy():
    for name in ("slurm/ray.sbatch", "ray/cluster.yaml"):
        assert "--dashboard-host=127.0.0.1" in (CLUSTER / name).read_text()
    assert "0.0.0.0" not in "".join(f.read_text() for f in CLUSTER.rglob("*") if f.is_file())
    policy = of_kind("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    cluster = of_kind("RayJob")["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        labels = group["template"]["metadata"]["labels"]
        assert policy["podSelector"]["matchLabels"].items() <= labels.items()


def test_credentials_come_from_secrets_alone():
    for container in containers():
        for variable in container.get("env", ()):
            secret = re.search(r"KEY|SECRET|TOKEN|PASSWORD", variable["name"])
            assert not (secret and "value" in variable), variable["name"]
    for name in ("head", "workers"):
        (container,) = pod_specs()[name]["containers"]
        assert [source for source in container["envFrom"] if "secretRef" in source]
    for file in CLUSTER.rglob("*"):
        if file.is_file():
            text = file.read_text()
            assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|hf_\w{20}", text), file


def test_every_folder_says_what_to_edit():
    for folder in (CLUSTER, *(path for path in CLUSTER.iterdir() if path.is_dir())):
        text = (folder / "README.md").read_text()
        assert folder == CLUSTER or "Edit" in text
