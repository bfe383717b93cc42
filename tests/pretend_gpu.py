"""A GPU played by the CPU: tensors that say they are on cuda:0 and hold their values in the host.

They refuse to be mixed with host tensors, and every point at which the host would wait for a device
is written down. C++ is told "meta", for which autograd needs no driver; Python reads "cuda:0".
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

CUDA, META, CPU = torch.device("cuda", 0), torch.device("meta"), torch.device("cpu")
ROOT = str(Path(__file__).parents[1])
HELD = 8 << 30  # bytes that the pretended allocator holds and nobody uses
FREE = 60 << 30

# Operations with the host on one side of them.
_CROSSING = {"aten._to_copy.default", "aten.copy_.default"}
# Indices may lie on the host; they are sent over.
_INDEXING = {
    "aten.index.Tensor",
    "aten.index_put.default",
    "aten.index_put_.default",
    "aten._index_put_impl_.default",
    "aten._unsafe_index.Tensor",
}
# What is asked of the device before the host can go on: a value, or how large a result is.
_WAITING = {
    "aten._local_scalar_dense.default",
    "aten.bincount.default",
    "aten.equal.default",
    "aten.is_nonzero.default",
    "aten.masked_select.default",
    "aten.nonzero.default",
    "aten.repeat_interleave.Tensor",
    "aten._unique2.default",
    "aten.unique_consecutive.default",
    "aten.unique_dim.default",
}


class OnGPU(torch.Tensor):
    """A tensor on the pretended device; `elem` holds its values."""

    elem: torch.Tensor

    @staticmethod
    def __new__(cls, elem):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            elem.size(),
            strides=elem.stride(),
            storage_offset=elem.storage_offset(),
            dtype=elem.dtype,
            layout=elem.layout,
            device=META,
        )

    def __init__(self, elem):
        self.elem = elem

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)
    is_cpu = property(lambda self: False)

    def __repr__(self):
        return f"OnGPU({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} on a pretended GPU's tensor outside of pretending")


class _Translate(TorchFunctionMode):
    """cuda -> meta in what Python asks of torch, before C++ looks for a driver."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in ("tolist", "numpy") and isinstance(args[0], OnGPU):
            args = (args[0].cpu(), *args[1:])
        if name == "pin_memory":
            return _pinned(args[0])
        args = tuple(map(_translated, args))
        kwargs = {key: _translated(value) for key, value in (kwargs or {}).items()}
        pin = kwargs.pop("pin_memory", False)
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == META:
            # torch.tensor asks no dispatch mode.
            return func(*args, **{**kwargs, "device": CPU}).to(META)
        out = func(*args, **kwargs)
        return _pinned(out) if pin else out


class PretendGPU(TorchDispatchMode):
    """Runs what is asked of the pretended device.

    waits: places in this repository, as `file:line`, and how often the host waited there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        key = "CompositeImplicitAutograd"
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key):
            with self:  # in inference mode these come here whole
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        name, to = str(func), kwargs.get("device")
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        ours = [t for t in tensors if isinstance(t, OnGPU)]
        hosts = [t for t in tensors if not isinstance(t, OnGPU)]
        if ours and name not in _CROSSING:
            self._refuse_mixed(name, hosts)
        if not ours and not _is_gpu(to):
            return func(*args, **kwargs)
        if self._waits(name, args, kwargs, ours, hosts):
            self.waits[_where()] += 1
        bare_args, bare = tree_map(_bare, args), tree_map(_bare, kwargs)
        if to is not None:
            bare["device"] = CPU
        bare.pop("non_blocking", None)
        out = func(*bare_args, **bare)
        if name == "aten.copy_.default":
            return args[0]
        down = to is not None and not _is_gpu(to)
        if down or name == "aten._local_scalar_dense.default":
            return out
        return return_and_correct_aliasing(func, args, kwargs, tree_map(_wrapped, out))

    def _refuse_mixed(self, name: str, hosts: list[torch.Tensor]) -> None:
        bad = [t for t in hosts if t.dim() > 0]
        if name in _INDEXING:
            bad = [t for t in bad if t.is_floating_point()]
        if bad:
            raise RuntimeError(
                f"Expected all tensors to be on the same device: {name} of cuda:0 and cpu "
                f"{[tuple(t.shape) for t in bad]} at {_where()}"
            )

    def _waits(self, name, args, kwargs, ours, hosts) -> bool:
        """Whether the host cannot go on before the device has done everything up to here."""
        if name == "aten._to_copy.default" and ours:
            return kwargs.get("device") is not None and not _is_gpu(kwargs["device"])
        if name in _CROSSING and hosts:
            if not hosts[0].numel():
                return False
            # From pageable memory a copy waits; so does one to the host, whatever it asks for.
            there = hosts[0] is not args[0] if name == "aten.copy_.default" else True
            asked = kwargs.get("non_blocking") or args[-1] is True
            return not (there and asked and getattr(hosts[0], "pretended_pinned", False))
        if name in _INDEXING:
            indices = [t for t in tree_leaves(args[1]) if isinstance(t, torch.Tensor)]
            return any(t.dtype == torch.bool or not isinstance(t, OnGPU) for t in indices)
        return name in _WAITING


@contextmanager
def pretend_gpu() -> Iterator[PretendGPU]:
    """Inside, there is a GPU: `cuda` names it in whatever torch is asked."""
    here = PretendGPU()
    stands_in: dict[str, Any] = {
        "_lazy_init": lambda: None,  # backward passes leave the function mode
        "is_available": lambda: True,
        "mem_get_info": lambda *_: (FREE, 80 << 30),
        "memory_reserved": lambda *_: HELD,
        "memory_allocated": lambda *_: 0,
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "set_rng_state": lambda state, *_: torch.set_rng_state(state),
        "manual_seed_all": lambda *_: None,
        "current_stream": mock.MagicMock(),
        "stream": mock.MagicMock(),
    }
    with ExitStack() as stack:
        for name, stand_in in stands_in.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, stand_in))
        stack.enter_context(_Translate())
        stack.enter_context(here)
        yield here


def _is_gpu(device: Any) -> bool:
    return device is not None and torch.device(device).type in ("cuda", "meta")


def _translated(value: Any) -> Any:
    named = isinstance(value, torch.device) or (isinstance(value, str) and value[:4] == "cuda")
    return META if named and _is_gpu(value) else value


def _bare(value: Any) -> Any:
    return value.elem if isinstance(value, OnGPU) else value


def _wrapped(value: Any) -> Any:
    return OnGPU(value) if type(value) is torch.Tensor else value


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.view_as(tensor) if tensor.requires_grad else tensor
    tensor.pretended_pinned = True  # type: ignore[attr-defined]
    return tensor


def _where() -> str:
    """The innermost line of this repository that is running, this file aside."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(ROOT) and "/.venv/" not in name and name != __file__:
            return f"{name[len(ROOT) + 1 :]}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"
