"""Tiny random models of many architectures, and the plain batch-1 autograd loop."""

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from taskeff.coslow.linears import LoRA, find_targets
from taskeff.tasks.prompts import TokenizedExample

VOCAB = 97
TINY = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
}
GROUPED = {**TINY, "num_key_value_heads": 2}
CONFIGS = {
    "llama": LlamaConfig(**GROUPED),
    "mistral": MistralConfig(**GROUPED, sliding_window=24),
    "qwen2": Qwen2Config(**GROUPED),
    "qwen3": Qwen3Config(**GROUPED, head_dim=8),
    "gemma": GemmaConfig(**GROUPED, head_dim=8, pad_token_id=0),
    "gemma2": Gemma2Config(**GROUPED, head_dim=8, sliding_window=24, pad_token_id=0),
    "smollm": LlamaConfig(**{**GROUPED, "tie_word_embeddings": True}),
    "phi3": Phi3Config(**GROUPED, pad_token_id=0),
    "neox": GPTNeoXConfig(**TINY, use_parallel_residual=True),
    "neox-serial": GPTNeoXConfig(**TINY, use_parallel_residual=False),
    "gpt2": GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=3, n_head=4, n_positions=256),
}


def build(name="llama", seed=0, dtype=torch.float32, attention="eager", scale=4.0):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:  # far enough from zero that every part matters
                parameter.mul_(scale)
    return model.to(dtype).eval()


def examples_of(n=10, prefix=40, seed=0, answers=(1, 4)):
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high):
        size = int(torch.randint(low, high, (1,), generator=generator))
        return tuple(torch.randint(1, VOCAB, (size,), generator=generator).tolist())

    head = draw(prefix, prefix + 1)
    return [
        TokenizedExample((*head, i % VOCAB, *draw(2, 14)), draw(*answers), f"e{i}")
        for i in range(n)
    ]


def plain_gradients(model, examples, projection=LoRA(rank=8, alpha=8), reduction="mean"):  # noqa: B008
    """(N, P) float64 gradients by autograd at batch size 1: weight gradients, then A."""
    targets = [t for block in find_targets(model) for t in block]
    rows = []
    for example in examples:
        model.zero_grad()
        ids = torch.tensor([example.prompt_ids + example.answer_ids])
        logits = model(ids, use_cache=False).logits[0, len(example.prompt_ids) - 1 : -1]
        answer = torch.tensor(example.answer_ids)
        torch.nn.functional.cross_entropy(logits.float(), answer, reduction=reduction).backward()
        parts = []
        for target in targets:
            gradient = target.module.weight.grad
            if target.weight.shape != gradient.shape or target.weight.stride() != gradient.stride():
                gradient = gradient.T
            if projection is not None:
                # d(W + s B A)/dB at B = 0: the weight gradient times A transposed.
                gradient = projection.scale * gradient @ projection.matrix(target).T
            parts.append(gradient.flatten().double())
        rows.append(torch.cat(parts).numpy())
    model.zero_grad()
    return np.stack(rows)


def plain_gram(model, examples, projection=LoRA(rank=8, alpha=8)):  # noqa: B008
    gradients = plain_gradients(model, examples, projection)
    return gradients @ gradients.T


def cosines(matrix):
    norms = np.sqrt(np.diag(matrix))
    return matrix / np.outer(norms, norms)
