"""The image can be built: the Dockerfile's own line is resolved against the index."""

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "cluster/Dockerfile").read_text()
PLAIN = {"CONSTRAINTS": "constraints.txt", "EXTRAS": "s3,gcs,deepspeed,mlflow,wandb"}
VLLM = {"CONSTRAINTS": "cluster/constraints-vllm.txt", "EXTRAS": "s3,gcs,mlflow,vllm,wandb"}
PACKAGES = {
    "s3": "s3fs",
    "gcs": "gcsfs",
    "deepspeed": "deepspeed",
    "mlflow": "mlflow-skinny",
    "vllm": "vllm",
    "wandb": "wandb",
}
# What the Dockerfile's Python installs, a release whose dry run downloads no wheel.
PIP = "pip>=25"


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(name: str) -> dict[str, str]:
    lines = [line for line in (ROOT / name).read_text().splitlines() if "==" in line]
    return {normal(package): version for package, version in (x.split("==") for x in lines)}


def install_line(arguments: dict[str, str]) -> list[str]:
    """The Dockerfile's `pip install` with build arguments filled in."""
    (line,) = re.findall(r"^RUN (pip install .+)$", DOCKERFILE, re.MULTILINE)
    for name, value in arguments.items():
        line = line.replace(f"${{{name}}}", value)
    return shlex.split(line)[1:]


def test_the_defaults_and_the_variant_are_those_of_the_dockerfile():
    defaults = dict(re.findall(r"^ARG (\w+)=(\S+)$", DOCKERFILE, re.MULTILINE))
    assert {name: defaults[name] for name in PLAIN} == PLAIN
    said = re.findall(r"--build-arg (\w+)=(\S+)", DOCKERFILE)
    assert dict(said) == VLLM


def test_vllm_changes_numpy_and_nothing_else():
    plain, vllm = pinned("constraints.txt"), pinned("cluster/constraints-vllm.txt")
    assert {name for name in plain.keys() & vllm.keys() if plain[name] != vllm[name]} == {"numpy"}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(
    (sys.platform, platform.machine(), sys.version_info[:2]) != ("linux", "x86_64", (3, 11)),
    reason="the image is Python 3.11 on Linux, and pip resolves for the Python that it runs on",
)
@pytest.mark.parametrize("arguments", [PLAIN, VLLM], ids=["plain", "vllm"])
def test_the_image_resolves_to_what_is_pinned(arguments, tmp_path):
    # An index of this machine's own may hold another build of torch: the image asks the public one.
    env = {
        k: v for k, v in os.environ.items() if k not in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL")
    }
    env |= {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    pip = tmp_path / "pip"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(pip), PIP]
    subprocess.run(command, env=env, check=True)
    report = tmp_path / "report.json"
    dry = ["--dry-run", "--ignore-installed", "--quiet", "--report", str(report)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *install_line(arguments), *dry],
        cwd=ROOT,
        env=env | {"PYTHONPATH": str(pip)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    items = json.loads(report.read_text())["install"]
    found = {normal(i["metadata"]["name"]): i["metadata"]["version"] for i in items}
    assert {PACKAGES[extra] for extra in arguments["EXTRAS"].split(",")} <= found.keys()
    # Nothing is left to the day on which the image is built.
    found.pop("taskeff")
    pins = pinned(arguments["CONSTRAINTS"])
    assert {name: pins.get(name) for name in found} == found
    # The wheel with CUDA 13, which is what the Dockerfile asks of the node's driver.
    assert found["nvidia-cuda-runtime"].startswith("13.")
    assert 'NVIDIA_REQUIRE_CUDA="cuda>=13.0"' in DOCKERFILE
