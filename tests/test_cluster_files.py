"""The cluster files, as far as they can be checked without a cloud."""

import copy
import importlib.metadata
import io
import zipfile
from pathlib import Path

import pytest
import ray
import yaml
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.kuberay.autoscaling_config import _get_ray_resources_from_group_spec
from ray.autoscaler._private.util import prepare_config, validate_config

from benchmarks.memory import FAMILIES, account_of, published
from taskeff.config_file import load_config
from taskeff.run.cost import lanes_of
from taskeff.run.placement import coslow_actors, demand, head_memory

VERSION = importlib.metadata.version("taskeff")
FOLDER = Path(__file__).parents[1] / "cluster"
LAUNCHERS = ("aws.yaml", "gcp.yaml")
HOME = "/home/ray/huggingface"


def load(name: str) -> list[dict]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_launcher_accepts_it(name):
    (config,) = load(name)
    validate_config(prepare_config(copy.deepcopy(config)))


@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_head_is_paid_for_and_workers_are_spot_from_none(name):
    (config,) = load(name)
    kinds = config["available_node_types"]
    head, worker = kinds[config["head_node_type"]], kinds["gpu"]
    spot = ("InstanceMarketOptions", "scheduling")
    assert not any(key in head["node_config"] for key in spot)
    assert any(key in worker["node_config"] for key in spot)
    assert worker["min_workers"] == 0
    assert worker["max_workers"] <= config["max_workers"]
    assert head["resources"] == {"CPU": 0}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_nothing_is_public_and_a_token_is_asked_for(name):
    (config,) = load(name)
    assert config["provider"]["use_internal_ips"] is True
    assert "0.0.0.0" not in (FOLDER / name).read_text()
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    started = [command for command in starts if "ray start" in command]
    assert len(started) == 2
    assert all("RAY_AUTH_MODE=token ray start" in command for command in started)
    assert "--dashboard-host=127.0.0.1" in started[0]
    assert config["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    for kind in config["available_node_types"].values():
        assert "accessConfigs" not in str(kind)
    if config["provider"]["type"] == "aws":
        # Without a group of its own the launcher makes one that opens port 22 to the world.
        kinds = config["available_node_types"].values()
        assert all(kind["node_config"]["SecurityGroupIds"] for kind in kinds)


def test_kubernetes_accepts_the_pods_and_the_policy():
    validate = pytest.importorskip("kubernetes_validate").validate
    job, policy = load("kuberay.yaml")
    spec = job["spec"]["rayClusterSpec"]
    templates = [spec["headGroupSpec"]["template"]]
    templates += [group["template"] for group in spec["workerGroupSpecs"]]
    for template in templates:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **template}
        validate(pod, "1.32", strict=True)
        broken = copy.deepcopy(pod)
        broken["spec"]["containers"][0]["imagee"] = "x"
        with pytest.raises(Exception, match="imagee"):
            validate(broken, "1.32", strict=True)
    validate(policy, "1.32", strict=True)


def test_the_ray_job_scales_from_none_behind_a_token():
    job, _ = load("kuberay.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]["rayClusterSpec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert "gke-spot" not in str(spec["headGroupSpec"])
    for group in spec["workerGroupSpecs"]:
        assert (group["replicas"], group["minReplicas"]) == (0, 0)
        assert "gke-spot" in str(group["template"]["spec"]["nodeSelector"])


def test_versions_agree():
    pinned = Path(FOLDER.parent / "constraints.txt").read_text()
    assert f"ray=={ray.__version__}" in pinned
    assert f"rayproject/ray:{ray.__version__}-" in (FOLDER / "Dockerfile").read_text()
    job, _ = load("kuberay.yaml")
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == ray.__version__
    for name in (*LAUNCHERS, "kuberay.yaml", "Dockerfile"):
        assert f"taskeff:{VERSION}" in (FOLDER / name).read_text()


def test_a_job_uploads_the_code_and_nothing_heavy(tmp_path):
    (environment,) = load("runtime_env.yaml")
    here = tmp_path / "project"
    wanted = ("taskeff/config.py", "jobs/calibrate.py", "configs/demo.yaml")
    heavy = (
        ".git/config",
        ".venv/bin/python",
        ".cache/model/model.safetensors",
        "results/run/report.html",
        "taskeff/__pycache__/config.pyc",
    )
    for name in (*wanted, *heavy):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("x")
    package = tmp_path / "package.zip"
    create_package(str(here), package, include_gitignore=True, excludes=environment["excludes"])
    names = zipfile.ZipFile(io.BytesIO(package.read_bytes())).namelist()
    files = {name for name in names if not name.endswith("/")}
    assert files == set(wanted)


def gpu_nodes(name: str) -> tuple[dict[str, float], int]:
    """What Ray sees of a file's GPU node, and how many of them there may be."""
    if name in LAUNCHERS:
        (config,) = load(name)
        kind = prepare_config(config)["available_node_types"]["gpu"]
        return kind["resources"], kind["max_workers"]
    (group,) = load(name)[0]["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    return _get_ray_resources_from_group_spec(group, is_head=False), group["maxReplicas"]


@pytest.mark.parametrize("name", (*LAUNCHERS, "kuberay.yaml"))
@pytest.mark.parametrize("family", FAMILIES)
def test_the_configurations_fit_the_machines_and_use_all_their_gpus(name, family):
    config = load_config(FOLDER.parent / f"configs/{family}.yaml")
    offered, nodes = gpu_nodes(name)
    (kind,) = config.cluster.node_types
    assert (kind.gpus, kind.max_nodes) == (offered["GPU"], nodes)
    assert kind.cpus <= offered["CPU"]
    assert offered[f"accelerator_type:{config.cluster.accelerator}"] == 1
    assert kind.accelerator == config.cluster.accelerator == "H100"
    lanes = lanes_of(config.cluster, demand(config, account_of(published(family))))
    cluster = config.cluster
    assert lanes * cluster.workers_per_job * cluster.gpus_per_worker == 32
    assert coslow_actors(config).actors == (1, 32)


def test_the_ray_job_runs_that_configuration_as_it_is_and_its_head_holds_the_jobs():
    job, _ = load("kuberay.yaml")
    words = job["spec"]["entrypoint"].split()
    path, overrides = words[words.index("-c") + 1], words[words.index("-c") + 2 :]
    config = load_config(FOLDER.parent / path, overrides)
    found = account_of(published(Path(path).stem, *overrides))
    lanes = lanes_of(config.cluster, demand(config, found))
    assert lanes == 16
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    memory = int(head["resources"]["limits"]["memory"].removesuffix("Gi"))
    assert head_memory(lanes) <= config.cluster.head_memory_gb <= memory
    # The run ends by itself first; what does not is ended, and started again once at most.
    assert config.cluster.max_hours * 3600 < job["spec"]["activeDeadlineSeconds"]
    assert job["spec"]["backoffLimit"] == 1


def test_drivers_and_cuda_agree():
    assert 'NVIDIA_REQUIRE_CUDA="cuda>=13.0"' in (FOLDER / "Dockerfile").read_text()
    assert "-cpu\n" in (FOLDER / "Dockerfile").read_text().partition("ARG BASE=")[2]
    (gcp,) = load("gcp.yaml")
    for kind in gcp["available_node_types"].values():
        (disk,) = kind["node_config"]["disks"]
        assert disk["initializeParams"]["sourceImage"].endswith("-nvidia-580")
    for name in ("aws.yaml", "kuberay.yaml"):
        assert "driver 580 or newer" in (FOLDER / name).read_text()
    assert "driver of 580 or newer" in (FOLDER.parent / "docs/cluster.md").read_text()


def test_weights_come_once_per_node_with_the_token_of_the_hub():
    assert f"HF_HOME={HOME} " in (FOLDER / "Dockerfile").read_text()
    for name in LAUNCHERS:
        (config,) = load(name)
        # One container per node, whose workers share its folder; the hub's client locks downloads.
        assert config["file_mounts"][f"{HOME}/token"] == "~/.cache/huggingface/token"
        assert "HF_TOKEN" not in (FOLDER / name).read_text()
    spec = load("kuberay.yaml")[0]["spec"]["rayClusterSpec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        env = {item["name"]: item for item in container["env"]}
        assert env["HF_HOME"]["value"] == HOME
        assert "secretKeyRef" in env["HF_TOKEN"]["valueFrom"]
        mounted = {item["mountPath"]: item["name"] for item in container["volumeMounts"]}
        volumes = {item["name"]: item for item in group["template"]["spec"]["volumes"]}
        assert "emptyDir" in volumes[mounted[HOME]]


def test_the_policy_lets_in_this_run_alone():
    job, policy = load("kuberay.yaml")
    spec = job["spec"]["rayClusterSpec"]
    ours = policy["spec"]["podSelector"]
    groups = (spec["headGroupSpec"], *spec["workerGroupSpecs"])
    assert [g["template"]["metadata"]["labels"] for g in groups] == [ours["matchLabels"]] * 2
    assert job["metadata"]["name"] in ours["matchLabels"].values()
    (rule,) = policy["spec"]["ingress"]
    assert [peer["podSelector"]["matchLabels"] for peer in rule["from"]] == [
        ours["matchLabels"],
        {"job-name": job["metadata"]["name"]},
        {"app.kubernetes.io/name": "kuberay-operator"},
    ]
