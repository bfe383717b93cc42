"""What the gradients may plan with on a GPU."""

import torch

from taskeff.memory import free_bytes


def test_what_the_allocator_holds_unused_is_free(monkeypatch):
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (10 << 30, 80 << 30))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: 50 << 30)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda device: 20 << 30)
    assert free_bytes(torch.device("cuda")) == int(0.8 * (40 << 30))
