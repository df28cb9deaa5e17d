"""kuberay.yaml against the published schema of KubeRay's RayJob, and as Ray's own autoscaler reads it.

The schema here has the fields that the manifest uses, and no others, with names, types and choices after the definition
of `ray.io/v1 RayJob` in github.com/ray-project/kuberay at feeaf72 (August 2026), so what is misspelt is refused. Pods
are Kubernetes' own; of them the fields that hold ours are checked.
"""

import copy
import os
import re

import jsonschema
import pytest
import yaml

from pipeline.infra.cluster import PROJECT
from pipeline.infra.resources import kuberay_config
from pipeline.training.presets import panoptic_presets


def fields(required=(), **properties):
    return {"type": "object", "properties": properties, "required": [*required], "additionalProperties": False}


TEXT, COUNT, SWITCH = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
QUANTITY = {"anyOf": [COUNT, {"type": "string", "pattern": r"^\d+(\.\d+)?([EPTGMK]i?|m)?$"}]}
KEY = fields(["secretKeyRef"], secretKeyRef=fields(["key"], name=TEXT, key=TEXT, optional=SWITCH))
CONTAINER = fields(
    ["name"],
    name=TEXT,
    image=TEXT,
    workingDir=TEXT,
    env={"type": "array", "items": fields(["name"], name=TEXT, value=TEXT, valueFrom=KEY)},
    envFrom={"type": "array", "items": fields(secretRef=fields(name=TEXT, optional=SWITCH))},
    resources=fields(
        limits={"type": "object", "additionalProperties": QUANTITY},
        requests={"type": "object", "additionalProperties": QUANTITY},
    ),
)
POD = fields(
    spec=fields(
        ["containers"],
        containers={"type": "array", "items": CONTAINER, "minItems": 1},
        tolerations={"type": "array", "items": fields(key=TEXT, operator=TEXT, effect=TEXT)},
    )
)
CLUSTER = fields(
    ["headGroupSpec"],
    rayVersion=TEXT,
    authOptions=fields(mode={"enum": ["disabled", "token"]}, secretName=TEXT),
    enableInTreeAutoscaling=SWITCH,
    autoscalerOptions=fields(version={"enum": ["v1", "v2"]}, idleTimeoutSeconds=COUNT),
    headGroupSpec=fields(["template"], rayStartParams=TEXTS, template=POD),
    workerGroupSpecs={
        "type": "array",
        "items": fields(
            ["groupName", "maxReplicas", "minReplicas", "template"],
            groupName=TEXT,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            rayStartParams=TEXTS,
            template=POD,
        ),
    },
)
RAYJOB = fields(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=fields(["name"], name={"type": "string", "maxLength": 47}),
    spec=fields(
        entrypoint=TEXT,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        shutdownAfterJobFinishes=SWITCH,
        ttlSecondsAfterFinished=COUNT,
        backoffLimit=COUNT,
        rayClusterSpec=CLUSTER,
    ),
)


@pytest.fixture
def documents():
    return list(yaml.safe_load_all((PROJECT / "kuberay.yaml").read_text()))


@pytest.fixture
def cluster(documents):
    return documents[0]["spec"]["rayClusterSpec"]


def container(group):
    (found,) = group["template"]["spec"]["containers"]
    return found, {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in found["env"]}


def test_kuberay_yaml_is_a_rayjob_of_the_published_schema(documents):
    jsonschema.validate(documents[0], RAYJOB)
    assert [document["kind"] for document in documents[1:]] == ["Deployment", "Service", "PersistentVolumeClaim"]


@pytest.mark.parametrize(
    "misspell",
    [
        lambda job: job["spec"].update(entryPoint=job["spec"].pop("entrypoint")),
        lambda job: job["spec"].update(submissionMode="JobMode"),
        lambda job: job["spec"]["rayClusterSpec"].update(enableInTreeAutoScaling=True),
        lambda job: job["spec"]["rayClusterSpec"]["authOptions"].update(mode="on"),
        lambda job: job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].pop("maxReplicas"),
        lambda job: job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].update(minReplica=0),
    ],
)
def test_a_misspelt_field_of_kuberay_yaml_is_refused(documents, misspell):
    job = copy.deepcopy(documents[0])
    misspell(job)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job, RAYJOB)


def test_rays_autoscaler_reads_gpu_nodes_from_zero_and_preflight_counts_them(cluster):
    config = kuberay_config({"metadata": {"name": "das", "namespace": "default"}, "spec": cluster})
    gpu = config["available_node_types"]["gpu"]
    assert (gpu["min_workers"], gpu["max_workers"]) == (0, 4)
    assert gpu["resources"]["CPU"] == 8 and gpu["resources"]["GPU"] == 1
    assert config["available_node_types"][config["head_node_type"]]["resources"]["CPU"] == 8
    assert kuberay_config({"metadata": {}, "spec": {**cluster, "enableInTreeAutoscaling": False}}) == {}


def test_every_pod_has_the_token_the_job_its_settings_and_mlflow_its_password(documents, cluster):
    assert cluster["authOptions"] == {"mode": "token", "secretName": "das"}
    head, environment = container(cluster["headGroupSpec"])
    worker, same = container(cluster["workerGroupSpecs"][0])
    assert environment == same and head["image"] == worker["image"]
    assert environment["RAY_AUTH_MODE"] == "token" and environment["DAS_PRESET"] in panoptic_presets()
    assert environment["DAS_PREPARED"].startswith("s3://") and environment["DAS_STORAGE"].startswith("s3://")
    assert environment["MLFLOW_TRACKING_URI"] == f"http://{documents[2]['metadata']['name']}:5000"
    (server,) = documents[1]["spec"]["template"]["spec"]["containers"]
    assert server["command"][:4] == ["mlflow", "server", "--app-name", "basic-auth"]
    given = {entry["name"]: entry["valueFrom"] for entry in server["env"]}
    assert given["MLFLOW_AUTH_ADMIN_PASSWORD"] == environment["MLFLOW_TRACKING_PASSWORD"]
    assert "MLFLOW_FLASK_SERVER_SECRET_KEY" in given
    job = PROJECT / documents[0]["spec"]["entrypoint"]
    assert os.access(job, os.X_OK) and head["workingDir"] == "/home/ray/das-pose"


def test_kuberay_yaml_has_the_locked_ray_and_explains_its_placeholders(cluster):
    text = (PROJECT / "kuberay.yaml").read_text()
    version = re.search(r"^ray==(.+)$", (PROJECT / "requirements.lock").read_text(), flags=re.MULTILINE)[1]
    assert cluster["rayVersion"] == version and f"rayproject/ray:{version}-py311-gpu" in text
    top, body = text.split("\napiVersion:", 1)
    assert set(re.findall(r"EDIT-[A-Z]+", body)) == {"EDIT-IMAGE", "EDIT-BUCKET"}
    assert body.count("EDIT-BUCKET") == 3 and re.search(r"EDIT-BUCKET .*\(three times\)", top)
