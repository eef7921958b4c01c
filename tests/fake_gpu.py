"""A GPU that is not there: tensors that say ``cuda`` and are worked on by the CPU, and a list of the host's waits.

Code takes the way that it takes on a GPU, with real numbers in it, so that its results can be compared. What makes the
host wait for the device (a number that is read, a shape that depends on numbers, a copy to the host, or from it without
``non_blocking``) is written down with the line that asked for it. Kernels are not tested here.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

_aten = torch.ops.aten
# What CUDA cannot do without telling the host a number: the size of the result, or whether it went well.
_READS = {
    _aten._local_scalar_dense,
    _aten.equal,
    _aten.nonzero,
    _aten.masked_select,
    _aten._unique,
    _aten._unique2,
    _aten.unique_dim,
    _aten.unique_consecutive,
    _aten.bincount,
    _aten.repeat_interleave,
    _aten.multinomial,
    _aten.linalg_eigh,
    _aten._linalg_eigh,
    _aten._linalg_svd,
    _aten.linalg_lstsq,
    _aten._linalg_check_errors,
}
_INDEXING = {_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_}
_COPIES = {_aten._to_copy, _aten.copy_}


class FakeGPU(TorchDispatchMode):
    """While it is entered, ``device="cuda"`` works; ``waits`` tells where a host would have waited."""

    def __init__(self, float64: bool = True) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.float64 = float64

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        placed = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, _OnGPU)]
        # There, and of tensors from there, autograd has not taken apart what consists of other calls.
        if torch.is_inference_mode_enabled() or any(leaf.is_inference() for leaf in placed):
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        there, asked = bool(placed), kwargs.get("device")
        to_gpu = asked is not None and torch.device(asked).type == "cuda"
        home = _numbered(asked) if to_gpu else placed[0].device if there else None
        if self._waits(func, args, kwargs, there, to_gpu):
            self.waits.append(_where(func))
        if to_gpu:
            kwargs["device"] = torch.device("cpu")
        inside = tree_map(_taken_off, (args, kwargs))
        _refuse_mixture(func, args, kwargs)
        done = func(*inside[0], **inside[1])
        if func.overloadpacket is _aten._to_copy and asked is not None and not to_gpu:
            return done
        if not there and not to_gpu:
            return done
        if not self.float64 and any(
            isinstance(leaf, Tensor) and leaf.dtype == torch.float64 for leaf in tree_leaves(done)
        ):
            raise TypeError(f"this device has no float64, and {_where(func)} asks for it")
        changed = {id(_taken_off(leaf)): leaf for leaf in (*args, *kwargs.values()) if isinstance(leaf, _OnGPU)}
        return tree_map(lambda leaf: changed[id(leaf)] if id(leaf) in changed else _put_on(leaf, home), done)

    @staticmethod
    def _waits(func: Any, args: Any, kwargs: Any, there: bool, to_gpu: bool) -> bool:
        op = func.overloadpacket
        if op in _COPIES:
            source = args[0] if op is _aten._to_copy else args[1]
            to_gpu = to_gpu if op is _aten._to_copy and "device" in kwargs else isinstance(args[0], _OnGPU)
            from_gpu = isinstance(source, _OnGPU)
            blocking = not (kwargs.get("non_blocking") or (op is _aten.copy_ and len(args) > 2 and args[2]))
            # What the host is to read must have arrived, whatever was said.
            return from_gpu != to_gpu and (from_gpu or blocking)
        if op in _INDEXING:
            indices = [index for index in args[1] if index is not None]
            return there and any(index.dtype == torch.bool or not isinstance(index, _OnGPU) for index in indices)
        return there and op in _READS


class _OnGPU(Tensor):
    """Says that it is on a GPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor, device: torch.device) -> _OnGPU:
        with torch.inference_mode(inner.is_inference()):  # a view of a parameter is none, in inference mode either
            made: _OnGPU = Tensor._make_wrapper_subclass(
                cls,
                inner.shape,
                strides=inner.stride(),
                storage_offset=inner.storage_offset(),
                dtype=inner.dtype,
                device=device,
                requires_grad=inner.requires_grad,
            )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of fake_gpu()")

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, value: _OnGPU) -> None:  # as transformers puts a longer table of words in the place of another
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.inner = value.inner

    def as_subclass(self, kind: Any) -> Any:
        return self if kind in (Tensor, _OnGPU) else super().as_subclass(kind)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"on a fake GPU: {self.inner!r}"


@contextmanager
def fake_gpu(*, float64: bool = True) -> Iterator[FakeGPU]:
    """Pretend that there is a GPU; one that does not compute in float64, as Apple's, without ``float64``.

    Example:
        >>> with fake_gpu() as gpu:
        ...     there = torch.ones(3).to("cuda", non_blocking=True)
        ...     print(there.device, bool((there + 1).sum() == 6), len(gpu.waits))
        cuda:0 True 1
    """
    torch._C._ensureCUDADeviceGuardSet()  # as torch's own fake tensors do: no driver is looked for
    future = torch.__future__
    before = (
        torch.cuda._lazy_init,
        torch._C._only_lift_cpu_tensors(),
        future.get_overwrite_module_params_on_conversion(),
    )
    torch.cuda._lazy_init = lambda: None
    torch._C._set_only_lift_cpu_tensors(True)
    future.set_overwrite_module_params_on_conversion(True)  # module.to() makes parameters of our kind
    try:
        with FakeGPU(float64) as gpu:
            yield gpu
    finally:
        torch.cuda._lazy_init, lifted, overwrite = before
        torch._C._set_only_lift_cpu_tensors(lifted)
        future.set_overwrite_module_params_on_conversion(overwrite)


def on_gpu(value: Tensor, device: str = "cuda:0") -> Tensor:
    """The tensor as one of a fake GPU: as if it had been there before."""
    return _OnGPU(value.detach().clone(), torch.device(device))


def back(value: Any) -> Any:
    """The numbers of a tensor, or of all tensors in a structure, as the CPU's."""
    return tree_map(_taken_off, value)


def _taken_off(leaf: Any) -> Any:
    return leaf.inner if isinstance(leaf, _OnGPU) else leaf


def _put_on(leaf: Any, device: torch.device) -> Any:
    return _OnGPU(leaf, device) if isinstance(leaf, Tensor) and not isinstance(leaf, _OnGPU) else leaf


def _numbered(device: Any) -> torch.device:
    return torch.device("cuda", torch.device(device).index or 0)


def _refuse_mixture(func: Any, args: Any, kwargs: Any) -> None:
    """As CUDA does: tensors of two devices do not meet, but for copies, a CPU's single numbers and a CPU's indices."""
    if func.overloadpacket in _COPIES:
        return
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if func.overloadpacket in _INDEXING:
        own, *others = tensors
        devices = {own.device, *(leaf.device for leaf in others if isinstance(leaf, _OnGPU))}
    else:
        devices = {leaf.device for leaf in tensors if isinstance(leaf, _OnGPU) or leaf.ndim > 0}
    if len(devices) > 1:
        raise RuntimeError(f"Expected all tensors to be on the same device, found {devices} in {func}")


def _where(func: Any) -> str:
    """The line of ours, or of diffusers, that asked; else the last one that is not torch's."""
    lines = [frame for frame in traceback.extract_stack() if frame.filename != __file__]
    ours = [frame for frame in lines if "sgdmix_albu/" in frame.filename or "/diffusers/" in frame.filename]
    others = [frame for frame in lines if "/torch/" not in frame.filename]
    at = (ours or others)[-1]
    return f"{func} at {'/'.join(at.filename.split('/')[-2:])}:{at.lineno}: {at.line}"
