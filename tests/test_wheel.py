"""The wheel works where the repository is not: built, unpacked, and run from another folder."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.distributed.candidates import family, some, write_manifest

REPOSITORY = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PLAIN = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
CALLER = "import sys, taskeff.cli; sys.argv[0] = 'taskeff'; taskeff.cli.main()"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel's file."""
    built = tmp_path_factory.mktemp("built")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    command = [*pip, "wheel", "--quiet", "--no-deps", "-w", str(built), str(REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True)
    if "No matching distribution found for hatchling" in done.stderr:
        pytest.skip("the build's hatchling comes from a package index, and none is in reach")
    assert done.returncode == 0, done.stderr
    (file,) = built.glob("taskeff-*.whl")
    return file


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory):
    """The folder that holds the installed wheel; its name has a space."""
    target = tmp_path_factory.mktemp("an install")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    install = [*pip, "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True)
    return target


@pytest.fixture
def call(unpacked, tmp_path):
    """Python, or `taskeff ARGUMENTS`, with the wheel and its dependencies and no repository."""

    def call(*arguments: object, code: str = CALLER) -> str:
        paths = [str(unpacked), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "200"}
        # -S: the editable install in site-packages is a .pth file, which would add the repository.
        command = [sys.executable, "-S", "-c", code, *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return call


def test_it_is_the_wheel_that_runs(call, unpacked):
    said = call(code="import sys, taskeff; print(taskeff.__file__, *sys.path, sep='\\n')")
    file, *paths = said.splitlines()
    assert Path(file).is_relative_to(unpacked)
    assert str(REPOSITORY) not in paths


def test_predict_from_a_published_family(call):
    found = json.loads(
        call("predict", "--family", "llama-3.1-8b-instruct", "--cos-low", "0.65", "--json")
    )
    assert 0 < found["auc"] < 1 and found["labels_needed"] is not None


def test_a_published_configuration_is_written_out(call, tmp_path):
    assert "qwen2.5-14b-instruct" in call("init")
    call("init", "llama-3.1-8b-instruct", "--out", "mine")
    for path in ("llama-3.1-8b-instruct.yaml", "tasks/sst2.yaml"):
        assert (tmp_path / "mine/configs" / path).read_bytes() == (
            REPOSITORY / "configs" / path
        ).read_bytes()


def test_rows_of_a_bundled_task_are_selected_and_a_page_made(call, tiny_model, tmp_path):
    options = ("--task", "boolean_expressions", "--pool-cap", 80, "--n", 8, "--max-new-tokens", 2)
    call("select", "--model", tiny_model, *options, "--out", "picked")
    rows = [json.loads(line) for line in (tmp_path / "picked/to_annotate.jsonl").open()]
    assert len(rows) == 8 and all(row["text"] for row in rows)
    call("label", "picked")
    assert "<script" in (tmp_path / "picked/label.html").read_text()


def test_data_sets_are_ranked_without_ray(call, tiny_model, tmp_path):
    manifest = write_manifest(tmp_path, some(tmp_path))
    known = family(tiny_model, tmp_path)
    call(
        *("rank", "--local", "--manifest", manifest, "--model", tiny_model),
        *("--family", known, "--out", "ranked"),
    )
    assert "<table" in (tmp_path / "ranked/ranking.html").read_text()


def test_a_slim_install_predicts_and_names_what_it_lacks(wheel, tmp_path):
    """Only what the wheel itself asks for, in an environment of its own."""
    python = tmp_path / "slim/bin/python"
    subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "-c", str(REPOSITORY / "constraints.txt"), str(wheel)], check=True)

    def taskeff(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(python.with_name("taskeff")), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=PLAIN, capture_output=True, text=True)

    evidence = ("--pilot", "50:0.61:200", "--zero-shot", "0.42:200", "--ceiling", "0.95")
    for arguments in (
        ("--version",),
        ("families",),
        ("predict", *evidence, "--html", "answer.html", "--plot", "answer.svg"),
    ):
        done = taskeff(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
    assert "How many labels" in (tmp_path / "answer.html").read_text("utf-8")
    for verb in (("select", "--data", "x.csv"), ("rank", "--manifest", "m.csv", "--family", "f")):
        done = taskeff(*verb, "--model", "m", "--out", "out")
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
        assert "pip install 'taskeff[run]'" in done.stderr
    size = sum(f.stat().st_size for f in python.parents[1].rglob("*") if f.is_file())
    print(f"{size / 1e6:.0f} MB")
    assert size < 0.6e9
