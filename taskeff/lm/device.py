"""What the host sends to the device while it goes on itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def on_device(values: Any, device: torch.device) -> Tensor:
    """`values`, a tensor or lists of numbers, on `device`.

    To a GPU they leave from pinned memory: any other copy makes the host wait for all that the
    GPU has still to do, and with a few of them per token it never works while the host does.
    """
    tensor = torch.as_tensor(values)
    if device.type != "cuda" or tensor.device == device:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
