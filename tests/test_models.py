"""Loading a model, as a log sees it."""

from transformers.utils import logging as bars

from taskeff.config import ModelConfig
from taskeff.models import load_model


def test_loading_draws_no_bar_in_a_log_and_leaves_the_setting(tiny_model, capfd):
    assert bars.is_progress_bar_enabled()
    load_model(ModelConfig(path=str(tiny_model), name="tiny", dtype="float32"), "cpu")
    assert "Loading weights" not in capfd.readouterr().err
    assert bars.is_progress_bar_enabled()
