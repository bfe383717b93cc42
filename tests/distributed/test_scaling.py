"""What a job's worker group asks of Ray."""

import pytest

from taskeff.config import ClusterConfig
from taskeff.distributed.trainer import scaling


@pytest.mark.parametrize(
    ("accelerator", "asked"), [("H100", {"accelerator_type:H100"}), (None, set())]
)
def test_a_job_stays_on_one_kind_of_gpu_and_on_one_node_where_it_fits(accelerator, asked):
    cluster = ClusterConfig(workers_per_job=2, gpus_per_worker=1, accelerator=accelerator)
    found = scaling(cluster)
    assert found.placement_strategy == "PACK"
    assert found._resources_per_worker_not_none.keys() - {"CPU", "GPU"} == asked


def test_workers_without_gpus_ask_for_no_kind():
    found = scaling(ClusterConfig(accelerator="H100"))
    assert found._resources_per_worker_not_none.keys() == {"CPU"}
