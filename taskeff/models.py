"""Load a causal LM and its tokenizer: dtype, attention choice, revision; safetensors only."""

from __future__ import annotations

import glob
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from taskeff.errors import ClusterError, ModelError, first_line
from taskeff.schema import decoded
from taskeff.tasks.prompts import template_hash

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from taskeff.config import ModelConfig

log = logging.getLogger(__name__)
_LFS = b"version https://git-lfs.github.com/"


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The model's tokenizer.

    Raises:
        ModelError: the folder or hub id has none, or cannot be reached.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            config.path, revision=config.revision, trust_remote_code=False
        )
    except Exception as error:
        raise ModelError(_why(config, "tokenizer", error)) from error
    if not len(tokenizer):
        raise ModelError(
            f"model {config.path!r} has no tokenizer; "
            "add tokenizer.json to its folder or name a model that has one"
        )
    return tokenizer


def load_architecture(config: ModelConfig) -> PreTrainedConfig:
    """The model's `config.json`.

    Raises:
        ModelError: missing, gated or unreachable, or a kind of model that is not known here.
    """
    from transformers import AutoConfig

    if config.path.startswith((".", "/", "~")) and not os.path.isdir(config.path):
        raise ModelError(f"model.path {config.path!r}: no such folder")
    try:
        return AutoConfig.from_pretrained(
            config.path, revision=config.revision, trust_remote_code=False
        )
    except Exception as error:
        raise ModelError(_why(config, "config.json", error)) from error


def window(architecture: PreTrainedConfig) -> int | None:
    """Positions that the model was made for; None where its architecture sets no limit."""
    text = architecture.get_text_config(decoder=True)
    limit = getattr(text, "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def parameter_count(architecture: PreTrainedConfig) -> int:
    """Parameters of the model that `architecture` describes; see `skeleton`."""
    return sum(parameter.numel() for parameter in skeleton(architecture).parameters())


def skeleton(architecture: PreTrainedConfig, **settings: Any) -> PreTrainedModel:
    """The modules of the model that `architecture` describes, without any weights.

    Args:
        settings: as transformers' `from_config` takes them (`dtype`, `attn_implementation`).

    Raises:
        ModelError: it is no causal language model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(
                architecture, trust_remote_code=False, **settings
            )
    except Exception as error:  # noqa: BLE001 - a model's code raises what it likes
        raise ModelError(
            f"model type {architecture.model_type!r} is no causal language model: "
            f"{first_line(error)}; name one that generates text"
        ) from None


def check_weights(config: ModelConfig) -> None:
    """Look into every weight file of a local folder; a hub id's are found when it is loaded.

    Raises:
        ModelError: there are no safetensors, some that the index names are missing, or one is cut
            or git-lfs's pointer to it.
    """
    folder = os.path.expanduser(config.path)
    if not os.path.isdir(folder):
        return
    index = os.path.join(folder, "model.safetensors.index.json")
    if os.path.exists(index):
        try:
            with open(index, encoding="utf-8") as file:
                named = set(decoded(file.read())["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise ModelError(f"{index}: not a readable index; download the model again") from None
        missing = sorted(name for name in named if not os.path.exists(os.path.join(folder, name)))
        if missing:
            raise ModelError(
                f"model {config.path!r}: {len(missing)} of {len(named)} weight files are missing "
                f"({missing[0]}, ...); download the model again"
            )
        for name in sorted(named):
            _check_whole(os.path.join(folder, name))
        return
    if os.path.exists(os.path.join(folder, "model.safetensors")):
        _check_whole(os.path.join(folder, "model.safetensors"))
        return
    pickles = glob.glob(os.path.join(glob.escape(folder), "*.bin"))
    how = "has only pickled weights, which can run code: convert them" if pickles else "has none"
    raise ModelError(
        f"model {config.path!r}: weights are read from safetensors only, and this folder {how}; "
        "save it again with model.save_pretrained(folder)"
    )


def _check_whole(path: str) -> None:
    from safetensors import safe_open

    try:
        with open(path, "rb") as file:
            is_pointer = file.read(len(_LFS)) == _LFS
        if not is_pointer:
            with safe_open(path, "numpy"):
                return
    except Exception as error:
        raise ModelError(
            f"{path}: not whole ({first_line(error)}); download the model again"
        ) from error
    raise ModelError(
        f"{path}: git left a pointer in place of the weights; run `git lfs pull` in the model's "
        "folder, or download it with `hf download`"
    )


def load_model(config: ModelConfig, device: str | None = None) -> PreTrainedModel:
    """The model in evaluation mode on `device` (CUDA where there is one, else the CPU).

    Raises:
        ModelError: missing, gated or unreachable weights, or no safetensors.
    """
    import torch
    from transformers import AutoModelForCausalLM

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_weights(config)
    attention = attention_choice(config.attn)
    try:
        with _no_bar_in_logs():
            model = AutoModelForCausalLM.from_pretrained(
                config.path,
                revision=config.revision,
                dtype=getattr(torch, config.dtype),
                attn_implementation=attention,
                use_safetensors=True,
                trust_remote_code=False,
            )
    except Exception as error:
        raise ModelError(_why(config, "model", error)) from error
    log.info("loaded %s (%s, %s, %s)", config.path, config.dtype, attention, device)
    torch.nn.Module.to(model, device)
    return model.eval()


def check_cuda(gpus: float) -> None:
    """Refuse to do on the CPU what was meant for `gpus` GPUs.

    Raises:
        ClusterError: GPUs are asked for and torch finds none; names its CUDA build and the driver.
    """
    import torch

    if not gpus or torch.cuda.is_available():
        return
    build = torch.version.cuda
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8") as file:
            driver = "the driver is " + file.readline().strip().removeprefix("NVRM version: ")
    except OSError:
        driver = "no NVIDIA driver is loaded"
    raise ClusterError(
        f"{gpus:g} GPU(s) are asked for and torch {torch.__version__} finds none: "
        f"{f'it is built for CUDA {build}' if build else 'it is a build without CUDA'}, {driver}; "
        "install a driver and a torch that fit each other, or set cluster.gpus_per_worker "
        "(scoring.gpus_per_actor) to 0"
    )


@contextmanager
def _no_bar_in_logs() -> Iterator[None]:
    """A bar per loaded model is for a terminal; transformers' setting is put back."""
    from transformers.utils import logging as bars

    if sys.stderr.isatty() or not bars.is_progress_bar_enabled():
        yield
        return
    bars.disable_progress_bar()
    try:
        yield
    finally:
        bars.enable_progress_bar()


def model_config(model: str | os.PathLike[str], dtype: str = "float32") -> ModelConfig:
    """The configuration of a model that is named by its hub id or folder.

    Args:
        dtype: float32, bfloat16 or float16.

    Raises:
        ModelError: an unknown dtype.
    """
    from pydantic import ValidationError

    from taskeff.config import ModelConfig

    path = os.fspath(model)
    name = re.sub(r"[^A-Za-z0-9._-]", "-", os.path.basename(path.rstrip("/"))) or "model"
    try:
        return ModelConfig.model_validate({"path": path, "name": name, "dtype": dtype})
    except ValidationError:
        raise ModelError(f"dtype {dtype!r}: give float32, bfloat16 or float16") from None


def named_model(
    model: ModelConfig | str | os.PathLike[str],
    dtype: str | None = None,
    measured: Mapping[str, Any] | None = None,
) -> ModelConfig:
    """`model_config` in the precision given, else as it was measured, else as it is stored; a
    configuration stays as it is.

    Args:
        measured: a fingerprint that it is to be measured as.

    Raises:
        ModelError: an unknown dtype, or none is given and the model's configuration cannot be read.
    """
    if not isinstance(model, str | os.PathLike):
        return model
    known = dtype or (measured or {}).get("dtype")
    return model_config(model, known or stored_dtype(os.fspath(model)))


def stored_dtype(path: str) -> str:
    """The precision of a checkpoint's weights, by its config.json; float32 where that says none
    of those that models are loaded in.

    Raises:
        ModelError: the configuration is missing, unreachable or of an unknown architecture.
    """
    architecture = load_architecture(model_config(path))
    said = str(architecture.get_text_config(decoder=True).dtype or architecture.dtype)
    name = said.removeprefix("torch.")
    return name if name in ("float32", "bfloat16", "float16") else "float32"


def attention_choice(wanted: str) -> str:
    """`auto` -> sdpa: packed rows need a block mask, which flash attention does not take."""
    return "sdpa" if wanted == "auto" else wanted


def model_identity(config: ModelConfig) -> dict[str, str | None]:
    """What names the model in a fingerprint: a hub id and revision, or a folder's own digest."""
    if not os.path.isdir(config.path):
        return {"model": config.path, "revision": config.revision}
    import hashlib

    sha = hashlib.sha256()
    for name in sorted(os.listdir(config.path)):
        if name.endswith((".safetensors", "tokenizer.json", "config.json")):
            sha.update(name.encode())
            with open(os.path.join(config.path, name), "rb") as file:
                while block := file.read(1 << 22):
                    sha.update(block)
    return {"model": config.name, "revision": f"sha256:{sha.hexdigest()[:16]}"}


def family_identity(
    config: ModelConfig, tokenizer: PreTrainedTokenizerBase
) -> dict[str, str | None]:
    """Model, revision and chat template: what a family's measurements belong to."""
    return {**model_identity(config), "chat_template": template_hash(tokenizer)}


def _why(config: ModelConfig, what: str, error: Exception) -> str:
    first = first_line(error)
    said = str(error).lower()
    if isinstance(error, ImportError):
        fix = "install the package that it needs, or name weights that are not quantised"
    elif "gated repo" in said or "403" in said:
        fix = "accept its licence on the hub, log in with `hf auth login`, or give a local folder"
    elif "valid model identifier" in said and not os.path.isdir(config.path):
        # The hub tells a stranger of a private model what it tells of one that is not there.
        fix = "check the id, or log in with `hf auth login` if it is private"
    elif "trust_remote_code" in said or "custom code" in said:
        fix = "no model's own code is run here: name a model that transformers knows"
    elif os.path.isdir(config.path):
        fix = "check that the folder holds config.json, model.safetensors and tokenizer.json"
    elif "safetensors" in said or "pytorch_model.bin" in said:
        fix = "only safetensors are read: pick a model or revision that has them, or convert it"
    else:
        fix = (
            "check the id and model.revision, the network, HF_HUB_OFFLINE and HF_ENDPOINT, "
            "or give a local folder"
        )
    return f"cannot load the {what} of {config.path!r}: {first} - {fix}"
