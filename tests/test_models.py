"""Loading a model, as a log sees it."""

import pytest
from transformers.utils import logging as bars

from taskeff.config import ModelConfig
from taskeff.errors import ClusterError
from taskeff.models import check_cuda, load_model


def test_loading_draws_no_bar_in_a_log_and_leaves_the_setting(tiny_model, capfd):
    assert bars.is_progress_bar_enabled()
    load_model(ModelConfig(path=str(tiny_model), name="tiny", dtype="float32"), "cpu")
    assert "Loading weights" not in capfd.readouterr().err
    assert bars.is_progress_bar_enabled()


def test_gpus_that_are_asked_for_and_not_there_are_an_error(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    check_cuda(0)
    with pytest.raises(ClusterError, match=r"1 GPU\(s\) are asked for and torch .* driver"):
        check_cuda(1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    check_cuda(1)
