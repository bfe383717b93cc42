"""Loading a model, as a log sees it."""

import json
import shutil
from unittest.mock import Mock

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as bars

from taskeff.config import ModelConfig
from taskeff.errors import ClusterError, ModelError
from taskeff.models import (
    check_cuda,
    check_weights,
    load_architecture,
    load_model,
    load_tokenizer,
    model_config,
    named_model,
    stored_dtype,
)

WEIGHTS = "model.safetensors"


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


@pytest.fixture
def copy(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"", "not whole"),
        (b"<html>404 not found</html>", "not whole"),
        (None, "not whole"),
    ],
)
def test_weights_that_are_not_there_in_whole(copy, content, message, sharded):
    whole = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(whole[:-100] if content is None else content)
    if sharded:
        index = {"weight_map": {"model.embed_tokens.weight": WEIGHTS}}
        (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    config = model_config(str(copy))
    for check in (check_weights, load_model):
        with pytest.raises(ModelError, match=message) as error:
            check(config)
        assert str(copy / WEIGHTS) in str(error.value)


class StrangeError(Exception):
    """What nobody expects."""


@pytest.mark.parametrize(
    ("load", "of"),
    [
        (load_tokenizer, AutoTokenizer),
        (load_architecture, AutoConfig),
        (load_model, AutoModelForCausalLM),
    ],
)
def test_whatever_loading_raises_is_one_line(tiny_model, monkeypatch, load, of):
    for raised, message in (
        (StrangeError("boom\nand more"), "StrangeError: boom - "),
        (ImportError("needs bitsandbytes"), "needs bitsandbytes - install the package"),
    ):
        monkeypatch.setattr(of, "from_pretrained", Mock(side_effect=raised))
        with pytest.raises(ModelError, match=message) as error:
            load(model_config(str(tiny_model)))
        assert "\n" not in str(error.value)
        assert repr(str(tiny_model)) in str(error.value)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "float16"}, "float16"),
        ({"dtype": "float8_e4m3fn"}, "float32"),
        ({}, "float32"),
    ],
)
def test_a_model_is_loaded_as_it_is_stored_unless_another_precision_is_meant(
    tiny_model, tmp_path, said, meant
):
    config = json.loads((tiny_model / "config.json").read_text())
    config.pop("dtype", None)
    (tmp_path / "config.json").write_text(json.dumps(config | said))
    assert stored_dtype(str(tmp_path)) == meant
    assert named_model(str(tmp_path), None, None).dtype == meant
    assert named_model(str(tmp_path), None, {"dtype": "float16"}).dtype == "float16"
    assert named_model(str(tmp_path), "float32", {"dtype": "float16"}).dtype == "float32"
