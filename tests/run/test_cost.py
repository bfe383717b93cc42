"""Forecasts and refusals before anything starts: no Ray."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from taskeff.config import ClusterConfig, NodeType
from taskeff.config_file import parse_config
from taskeff.errors import ClusterError
from taskeff.finetune.cells import Cell
from taskeff.run.cost import (
    check_placement,
    expected,
    forecast,
    lines,
    parameter_count,
    work_of,
)
from taskeff.run.placement import (
    Demand,
    coslow_actors,
    head_memory,
    jobs_at_once,
    lanes_of,
)
from taskeff.run.plan import make_plan
from tests.helpers import run_cli, run_values, write_config

A100 = NodeType(name="a100", cpus=96, gpus=8, gpu_memory_gb=80, max_nodes=2)
L4 = NodeType(name="l4", cpus=12, gpus=1, gpu_memory_gb=24, max_nodes=4)


def cluster(**changes) -> ClusterConfig:
    return ClusterConfig(gpus_per_worker=1, workers_per_job=2, **changes)


def test_jobs_that_fit_are_counted():
    need = Demand(workers=2, cpus=8, gpus=1, gpu_memory_gb=70)
    assert jobs_at_once(cluster(node_types=(A100,)), need) == 8
    assert jobs_at_once(cluster(node_types=(A100, L4)), need) == 8
    assert jobs_at_once(cluster(node_types=(A100, L4)), Demand(2, 12, 1, 20)) == 10


def test_what_never_fits_is_refused_with_both_sides_named():
    with pytest.raises(
        ClusterError,
        match=r"a job needs 2 x \(1 GPU of 80 GB, 8 CPU\); the largest node type offers "
        r"1 GPU of 24 GB, 12 CPU on at most 4 nodes \(l4\)",
    ):
        jobs_at_once(cluster(node_types=(L4,)), Demand(2, 8, 1, 80))
    with pytest.raises(ClusterError, match="hold 4 such workers"):
        jobs_at_once(cluster(node_types=(L4,)), Demand(5, 8, 1, 20))


@settings(max_examples=50, deadline=None)
@given(
    workers=st.integers(1, 9), cpus=st.integers(1, 99), gpus=st.integers(1, 9), n=st.integers(1, 5)
)
def test_a_count_of_jobs_is_really_placeable(workers, cpus, gpus, n):
    kind = A100.model_copy(update={"max_nodes": n})
    need = Demand(workers, cpus, gpus)
    per_node = 0
    while (per_node + 1) * cpus <= kind.cpus and (per_node + 1) * gpus <= kind.gpus:
        per_node += 1
    if per_node * n < workers:
        with pytest.raises(ClusterError):
            jobs_at_once(cluster(node_types=(kind,)), need)
    else:
        assert jobs_at_once(cluster(node_types=(kind,)), need) == per_node * n // workers


def test_parameters_are_counted_without_weights(tiny_model, tmp_path):
    from taskeff.models import load_model

    config = parse_config(run_values(tiny_model, tmp_path), "test")
    counted = parameter_count(config)
    assert counted == load_model(config.model).num_parameters()


@pytest.fixture
def plan(tiny_model, tmp_path):
    return make_plan(parse_config(run_values(tiny_model, tmp_path), "test"))


def test_work_grows_with_the_budget_and_counts_a_shared_prefix_once(plan):
    task = next(iter(plan.tasks.values()))
    none, small, large = (work_of(plan, Cell(task.spec.task, n, 0)) for n in (0, 8, 32))
    assert none.training == 0 < none.reading
    assert 0 < small.training < large.training
    padded = sum(len(task.spec.description) + len(e.text) for e in task.test[:8]) / 4
    assert small.training / 6 < 10 * padded


def test_measured_cells_set_the_pace(plan):
    before = forecast(plan, {})
    assert before.source.startswith("6ND at 0.05 TFLOP/s")
    assert before.done == 0
    assert len(before.seconds) == 9
    parameters = parameter_count(plan.config)
    planned = expected(plan, plan.cells, {}, parameters)[0]
    first = next(cell for cell in plan.cells if cell.budget)
    result = {
        "evaluation_seconds": 2.0,
        "training": {"seconds": 20.0},
        **vars(first),
        **{"hash": plan.cells[first], "score": 0.5, "label_score": None, "n_test": 30},
    }
    plan.folder(first).write_json(result, "result.json")
    after = forecast(plan, plan.results())
    assert (after.done, len(after.seconds)) == (1, 8)
    assert after.source == "the pace of 1 measured cells"
    other = Cell(first.task, max(plan.config.training.budgets), first.seed)
    works = {c: work_of(plan, c) for c in (first, other)}
    training = 20.0 * works[other].training / works[first].training
    reading = 2.0 * works[other].reading / works[first].reading
    assert after.seconds[other] == pytest.approx(training + reading)
    assert planned[other] != pytest.approx(training + reading)


def test_money_is_hours_times_price(tiny_model, tmp_path):
    values = run_values(tiny_model, tmp_path)
    values["cluster"] = {
        "gpus_per_worker": 2,
        "price_per_gpu_hour": 3.5,
        "node_types": [A100.model_dump()],
    }
    plan = make_plan(parse_config(values, "test"))
    found = forecast(plan, plan.results())
    assert found.money == pytest.approx(3.5 * found.hours)
    assert found.hours == pytest.approx(found.schedule.busy / 3600 * 2)
    said = "\n".join(lines(plan.config, found))
    assert "GPU-hours" in said
    assert "the node types hold 8 at once" in said
    assert "lanes: 8; the head needs about 14 GB of memory" in said
    money = said[said.index("\ntime: ") + 1 :].splitlines()[1]
    assert money == f"money: about {found.money:.2f} at 3.5 per GPU-hour"


def test_plan_refuses_what_can_never_be_placed(tiny_model, tmp_path, monkeypatch, capsys):
    values = run_values(tiny_model, tmp_path)
    values["cluster"] = {
        "gpus_per_worker": 1,
        "workers_per_job": 2,
        "node_types": [{"name": "small", "cpus": 4, "gpus": 1, "max_nodes": 1}],
    }
    config = write_config(tmp_path, values)
    for verb in ("plan", "calibrate"):
        code, _, said = run_cli(monkeypatch, capsys, verb, "-c", config)
        assert code == 2
        assert "a job needs 2 x (1 GPU" in said
        assert "the largest node type offers 1 GPU, 4 CPU on at most 1 node (small)" in said
    assert not (tmp_path / "tiny/config.yaml").exists()


def test_this_machine_is_asked_before_a_local_cluster_starts(tiny_model, tmp_path, monkeypatch):
    from taskeff.distributed.executor import RayExecutor
    from taskeff.run.driver import calibrate

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    values = run_values(tiny_model, tmp_path)
    values["cluster"] = {"workers_per_job": 4096}
    with pytest.raises(ClusterError, match="a job asks for 4096 CPUs"):
        calibrate(parse_config(values, "test"), RayExecutor, Console(quiet=True))


def test_lanes_are_no_more_than_the_nodes_hold(tiny_model, tmp_path):
    values = run_values(tiny_model, tmp_path)
    values["cluster"] = {
        "max_concurrent_jobs": 50,
        "gpus_per_worker": 4,
        "node_types": [A100.model_dump()],
    }
    assert check_placement(parse_config(values, "test")) == 4


H100 = A100.model_copy(update={"name": "h100", "accelerator": "H100"})


def test_jobs_are_as_many_as_the_nodes_hold_unless_fewer_are_asked_for():
    need = Demand(workers=2, cpus=8, gpus=1)
    assert lanes_of(cluster(node_types=(A100,)), need) == 8
    assert lanes_of(cluster(node_types=(A100,), max_concurrent_jobs=3), need) == 3
    assert lanes_of(cluster(node_types=(A100,), max_concurrent_jobs=50), need) == 8
    assert lanes_of(cluster(), need) == 2


def test_only_nodes_of_the_named_accelerator_hold_a_job():
    both = (H100, A100.model_copy(update={"accelerator": "A100", "max_nodes": 9}))
    need = Demand(workers=2, cpus=8, gpus=1, accelerator="H100")
    assert jobs_at_once(cluster(node_types=both), need) == 8
    with pytest.raises(
        ClusterError, match=r"needs 2 x \(1 H100 GPU, 8 CPU\); .* offers 8 A100 GPU of 80 GB"
    ):
        jobs_at_once(cluster(node_types=both[1:]), need)


def test_a_head_too_small_for_the_jobs_is_refused():
    need = Demand(workers=2, cpus=8, gpus=1)
    assert head_memory(8) == pytest.approx(13.6)
    assert lanes_of(cluster(node_types=(A100,), head_memory_gb=14), need) == 8
    with pytest.raises(
        ClusterError, match=r"8 jobs .* need a head with 14 GB .*max_concurrent_jobs to 6"
    ):
        lanes_of(cluster(node_types=(A100,), head_memory_gb=12), need)


def test_actors_of_coslow_follow_from_the_nodes(tiny_model, tmp_path):
    values = run_values(tiny_model, tmp_path)
    values["cluster"] = {"gpus_per_worker": 1, "node_types": [A100.model_dump()]}
    assert coslow_actors(parse_config(values, "test")).actors == (1, 16)
    values["scoring"] = {"gpus_per_actor": 0.5}
    assert coslow_actors(parse_config(values, "test")).actors == (1, 32)
    values["scoring"] = {"actors": [2, 3]}
    assert coslow_actors(parse_config(values, "test")).actors == (2, 3)
    values["scoring"], values["cluster"] = {}, {}
    assert coslow_actors(parse_config(values, "test")).actors == (1, 2)
