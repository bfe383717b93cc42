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
from ray.autoscaler._private.util import prepare_config, validate_config

VERSION = importlib.metadata.version("taskeff")
FOLDER = Path(__file__).parents[1] / "cluster"
LAUNCHERS = ("aws.yaml", "gcp.yaml")


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
    assert config["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
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
