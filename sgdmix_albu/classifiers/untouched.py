"""Using somebody's model without leaving a trace on it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from sgdmix_albu.devices import CPU, random_kept


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within: torch's random numbers on the CPU follow from ``seed``. After: they go on as before.

    ``torch.manual_seed`` would seed every GPU as well, and leave it so.

    Example:
        >>> with seeded(1):
        ...     first = torch.rand(1)
        >>> with seeded(1):
        ...     bool(torch.rand(1) == first)
        True
    """
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Within: ``model`` in evaluation mode, its parameters frozen. After: everything as it was, also on an error.

    Put back are each submodule's mode, hooks and attributes, ``requires_grad``, the buffers' values, and the
    random states of Python, numpy and torch (on the CPU and the model's device). ``.grad`` cannot change, since
    frozen parameters collect none. The graph of a forward pass made before stays valid. Frozen parameters also
    mean that no graph is built below the first tensor that asks for gradients.

    Modes are set without calling ``train()``, which some models override with lasting effects; in-place
    compiled modules run uncompiled, for compiled code does not see new hooks. Inference mode is left.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()).train()
        >>> with untouched(model):
        ...     model.training, model[0].weight.requires_grad
        (False, False)
        >>> model.training, model[0].weight.requires_grad
        (True, True)
    """
    modules = list(model.modules())
    attributes = [dict(vars(module)) for module in modules]
    # Hooks, buffers and the like are kept in dicts, which Captum changes in place.
    tables = [
        {name: value.copy() for name, value in before.items() if isinstance(value, dict)} for before in attributes
    ]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # Inference tensors have no version and cannot be changed outside inference mode.
    ordinary = [buffer for buffer in model.buffers() if not buffer.is_inference()]
    buffers = [(buffer, buffer._version, buffer.detach().clone()) for buffer in ordinary]
    with torch.inference_mode(False), _random_states(model):
        try:
            for module in modules:
                module.training = False
                if module._compiled_call_impl is not None:
                    module._compiled_call_impl = None
            for parameter in trained:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)
            for module, before, inner in zip(modules, attributes, tables, strict=True):
                vars(module).clear()
                vars(module).update(before)
                for name, table in inner.items():
                    before[name].clear()
                    before[name].update(table)
            with torch.no_grad():
                for buffer, version, value in buffers:
                    if buffer._version != version:
                        buffer.copy_(value)


@contextmanager
def _random_states(model: nn.Module) -> Iterator[None]:
    parameter = next(model.parameters(), None)
    device = CPU if parameter is None else parameter.device
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  Captum draws from the global one
    try:
        with random_kept(device):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
