"""A GPU that is none: tensors that say they are on one, refuse what a GPU's tensors refuse, and compute on the CPU.

Mixing tensors of two devices, or asking one on the GPU for numpy, fails as it does there. So device faults show on
machines without a GPU, in code that looks at values, which torch's own fake tensors cannot run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CPU = torch.device("cpu")
_ANYWHERE = {torch.ops.aten.copy_.default}  # between any two devices


class OnGPU(torch.Tensor):
    """A CPU tensor that says it is elsewhere."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor, device: torch.device) -> OnGPU:
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=device, requires_grad=False,
        )  # fmt: skip

    def __init__(self, inner: torch.Tensor, device: torch.device) -> None:
        self.inner = inner

    def tolist(self) -> Any:
        return self.inner.tolist()

    def __repr__(self) -> str:
        return f"OnGPU({tuple(self.shape)}, {self.dtype}, {self.device})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class PretendedGPU(TorchDispatchMode):
    """Within: tensors may be made on, and moved to, another device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def on(device: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, there."""
    return tensor if device == "cpu" else OnGPU(tensor, torch.device(device))


def module_on(device: str, module: nn.Module) -> nn.Module:
    """The module with its parameters and buffers there."""
    for part in module.modules():
        for name, value in list(part._parameters.items()):
            if value is not None:
                part._parameters[name] = nn.Parameter(on(device, value.detach()), requires_grad=value.requires_grad)
        for name, value in list(part._buffers.items()):
            if value is not None:
                part._buffers[name] = on(device, value)
    return module


def _device(tensor: torch.Tensor) -> torch.device:
    return tensor.device if isinstance(tensor, OnGPU) else CPU


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    wanted = kwargs.get("device")
    home = _home(func, args, tensors) if wanted is None else torch.device(wanted)
    if wanted is not None:
        kwargs = {**kwargs, "device": CPU, **({"pin_memory": False} if "pin_memory" in kwargs else {})}
    wrappers = {id(tensor.inner): tensor for tensor in tensors if isinstance(tensor, OnGPU)}

    def inside(leaf: Any) -> Any:
        return leaf.inner if isinstance(leaf, OnGPU) else leaf

    found = func(*tree_map(inside, args), **tree_map(inside, kwargs))

    def outside(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or home == CPU:
            return leaf
        return wrappers.get(id(leaf)) if id(leaf) in wrappers else OnGPU(leaf, home)

    return tree_map(outside, found)


def _home(func: Any, args: Any, tensors: list[torch.Tensor]) -> torch.device:
    if not tensors:
        return CPU
    first = _device(tensors[0])
    if func in _ANYWHERE:
        return first
    if func.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_):
        # A GPU's tensor may be indexed from the CPU, not the other way round.
        others = {_device(tensor) for tensor in tensors[1:]} - {CPU}
        if not others <= {first}:
            raise RuntimeError(f"indices should be on the indexed tensor's device {first}, got {others}")
        return first
    devices = {_device(tensor) for tensor in tensors if tensor.ndim} or {_device(tensor) for tensor in tensors}
    # A number in a tensor of its own may be on the CPU; one on a GPU may not meet a CPU's tensor.
    devices |= {_device(tensor) for tensor in tensors if not tensor.ndim} - {CPU}
    if len(devices) > 1:
        raise RuntimeError(
            f"{func}: expected all tensors to be on the same device, but found {sorted(map(str, devices))}"
        )
    return devices.pop()
