"""Load a causal LM and its tokenizer: dtype, attention choice, revision; safetensors only."""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING

from taskeff.errors import ModelError
from taskeff.tasks.prompts import template_hash

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from taskeff.config import ModelConfig

log = logging.getLogger(__name__)


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The model's tokenizer.

    Raises:
        ModelError: the folder or hub id has none, or cannot be reached.
    """
    from transformers import AutoTokenizer

    if config.path.startswith((".", "/", "~")) and not os.path.isdir(config.path):
        raise ModelError(f"model.path {config.path!r}: no such folder")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            config.path, revision=config.revision, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(_why(config, "tokenizer", error)) from error
    if not len(tokenizer):
        raise ModelError(
            f"model {config.path!r} has no tokenizer; "
            "add tokenizer.json to its folder or name a model that has one"
        )
    return tokenizer


def load_model(config: ModelConfig, device: str | None = None) -> PreTrainedModel:
    """The model in evaluation mode on `device` (CUDA where there is one, else the CPU).

    Raises:
        ModelError: missing, gated or unreachable weights, or no safetensors.
    """
    import torch
    from transformers import AutoModelForCausalLM

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    attention = attention_choice(config.attn)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            config.path,
            revision=config.revision,
            dtype=getattr(torch, config.dtype),
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(_why(config, "model", error)) from error
    log.info("loaded %s (%s, %s, %s)", config.path, config.dtype, attention, device)
    torch.nn.Module.to(model, device)
    return model.eval()


def model_config(path: str, dtype: str = "float32") -> ModelConfig:
    """The configuration of a model named on the command line.

    Raises:
        ModelError: an unknown dtype.
    """
    from pydantic import ValidationError

    from taskeff.config import ModelConfig

    name = re.sub(r"[^A-Za-z0-9._-]", "-", os.path.basename(path.rstrip("/"))) or "model"
    try:
        return ModelConfig.model_validate({"path": path, "name": name, "dtype": dtype})
    except ValidationError:
        raise ModelError(f"dtype {dtype!r}: give float32, bfloat16 or float16") from None


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
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "gated" in str(error).lower():
        fix = "accept its licence on the hub and log in with `hf auth login`"
    elif os.path.isdir(config.path):
        fix = "check that the folder holds config.json, model.safetensors and tokenizer.json"
    else:
        fix = "check the id, the network and HF_HUB_OFFLINE, or give a local folder"
    return f"cannot load the {what} of {config.path!r}: {first} - {fix}"
