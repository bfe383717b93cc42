"""Real model families: their chat templates, and tokenizers that hold their special tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

TEMPLATES = Path(__file__).parent / "templates"
DESCRIPTION = "Answer with exactly one of these two words: yes, no."
TEXT = "Word: sky"


@dataclass(frozen=True)
class Family:
    """One model family: what its tokenizer holds, and the prompt its template must give."""

    template: str | None
    bos: str | None
    eos: str
    prompt: str
    end: str
    """The token that ends the model's turn."""
    named: tuple[str, ...] = ()
    """Special tokens its tokenizer names beside BOS and EOS."""
    added: tuple[str, ...] = ()
    """Special tokens it only lists as added."""
    answer: str = "yes"
    adds_bos: bool = True


LLAMA = {
    "bos": "<|begin_of_text|>",
    "eos": "<|eot_id|>",
    "end": "<|eot_id|>",
    "added": ("<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>"),
    "prompt": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
    "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
    f"{DESCRIPTION}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
    f"{TEXT}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
}
CHATML = (
    f"<|im_start|>system\n{DESCRIPTION}<|im_end|>\n"
    f"<|im_start|>user\n{TEXT}<|im_end|>\n<|im_start|>assistant\n"
)
GEMMA = {
    "bos": "<bos>",
    "eos": "<eos>",
    "end": "<end_of_turn>",
    "added": ("<start_of_turn>", "<end_of_turn>"),
    "prompt": f"<bos><start_of_turn>user\n{DESCRIPTION}\n\n{TEXT}<end_of_turn>\n"
    "<start_of_turn>model\n",
}
FAMILIES = {
    "llama-3.1": Family("llama-3.1-instruct", **LLAMA),
    "llama-3.2": Family("llama-3.2-instruct", **LLAMA),
    "mistral": Family(
        "mistral-7b-instruct-v0.3",
        bos="<s>",
        eos="</s>",
        end="</s>",
        added=("[INST]", "[/INST]"),
        prompt=f"<s>[INST] {DESCRIPTION}\n\n{TEXT}[/INST]",
        answer=" yes",
    ),
    "qwen2.5": Family(
        "qwen2.5-instruct",
        bos=None,
        eos="<|im_end|>",
        end="<|im_end|>",
        named=("<|im_start|>",),
        added=("<|endoftext|>",),
        prompt=CHATML,
        adds_bos=False,
    ),
    "qwen3": Family(
        "qwen3",
        bos=None,
        eos="<|im_end|>",
        end="<|im_end|>",
        named=("<|im_start|>",),
        added=("<|endoftext|>", "<think>", "</think>"),
        prompt=CHATML + "<think>\n\n</think>\n\n",
        adds_bos=False,
    ),
    "gemma-2": Family("gemma-2-it", **GEMMA),
    "gemma-3": Family("gemma-3-it", **GEMMA),
    "smollm2": Family(
        "smollm2-instruct",
        bos="<|im_start|>",
        eos="<|im_end|>",
        end="<|im_end|>",
        prompt=CHATML,
        adds_bos=False,
    ),
    "none": Family(
        None,
        bos="<s>",
        eos="</s>",
        end="</s>",
        prompt=f"<s>{DESCRIPTION}\n\n{TEXT}\nAnswer:",
        answer=" yes",
    ),
}


def tokenizer_of(family: Family, template: str | None = None) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with the family's special tokens and template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    named = [t for t in (family.bos, family.eos, *family.named) if t]
    core.add_special_tokens(list(dict.fromkeys([*named, *family.added])))
    if family.bos and family.adds_bos:
        core.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A", special_tokens=[(family.bos, core.token_to_id(family.bos))]
        )
    if template is None and family.template:
        template = (TEMPLATES / f"{family.template}.jinja").read_text(encoding="utf-8")
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=family.bos,
        eos_token=family.eos,
        additional_special_tokens=list(family.named),
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )
