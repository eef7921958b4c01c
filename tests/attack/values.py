"""Arguments for random calls, sane and wild, each as the text that makes it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

__all__ = ["KINDS", "Sizes", "array", "drawn_sizes", "tensor", "wild"]


@dataclass(frozen=True)
class Sizes:
    """What the sane arguments of one call agree on: B images of C channels, H x W."""

    b: int
    c: int
    h: int
    w: int

    @property
    def images(self) -> tuple[int, ...]:
        return self.b, self.c, self.h, self.w

    @property
    def maps(self) -> tuple[int, ...]:
        return self.b, self.h, self.w


Maker: TypeAlias = Callable[[random.Random, Sizes], str]

FLOATS = ("float32", "float32", "float16", "bfloat16", "float64")
INTEGERS = ("uint8", "int8", "uint16", "int16", "int32", "int64", "uint32", "uint64")
STRANGE = ("bool", "complex64", "complex128", "complex32", "float8_e4m3fn", "float8_e5m2", "quint8")
HOWS = ("", "", "nan", "inf", "negative", "large", "strided", "channels_last", "flipped", "expanded", "zeros", "ones")
STATES = (
    "grad",
    "meta",
    "sparse",
    "sparse_csr",
    "inference",
    "parameter",
    *("image", "mask", "saliency", "boxes", "video"),
)


def tensor(shape: tuple[int, ...], dtype: str = "float32", how: str = "", seed: int = 0) -> Any:
    """A tensor of random numbers, those of floats in [0, 1), made strange as ``how`` says."""
    kind = getattr(torch, dtype)
    rng = torch.Generator().manual_seed(seed)
    values = torch.rand(shape, generator=rng, dtype=torch.float64)
    if how in ("nan", "inf") and values.numel():
        values.view(-1)[seed % values.numel()] = float(how)
    values = {"negative": -values, "large": values * 1e6, "zeros": values * 0, "ones": values * 0 + 1}.get(how, values)
    if dtype == "quint8":
        return torch.quantize_per_tensor(values.float(), 0.01, 0, torch.quint8)
    if not kind.is_floating_point and not kind.is_complex and kind != torch.bool:
        values = (values.nan_to_num(0, 1, 0) * min(255, torch.iinfo(kind).max)).round()
        values = values.clamp(torch.iinfo(kind).min, min(torch.iinfo(kind).max, 2**53))
    made = values > 0.5 if kind == torch.bool else values.to(kind)
    return _in_memory(made, how)


def _in_memory(made: Tensor, how: str) -> Any:
    from torchvision import tv_tensors

    from sgdmix_albu.saliency import SaliencyMap

    if how == "strided" and made.ndim:
        return torch.stack([made, made], -1)[..., 0]
    if how == "channels_last" and made.ndim == 4:
        return made.contiguous(memory_format=torch.channels_last)
    if how == "flipped" and made.ndim:
        return made.transpose(0, -1).contiguous().transpose(0, -1)
    if how == "expanded" and made.ndim and len(made):
        return made[:1].expand(made.shape)
    if how == "grad":
        return made.requires_grad_() if made.dtype.is_floating_point or made.is_complex() else made
    if how == "sparse_csr":
        return made.to_sparse_csr() if made.ndim == 2 else made.to_sparse()
    if how == "inference":
        with torch.inference_mode():
            return made.clone()
    changed: dict[str, Callable[[], Any]] = {
        "meta": lambda: made.to("meta"),
        "sparse": made.to_sparse,
        "parameter": lambda: torch.nn.Parameter(made, requires_grad=made.dtype.is_floating_point),
        "image": lambda: made.as_subclass(tv_tensors.Image),
        "mask": lambda: made.as_subclass(tv_tensors.Mask),
        "saliency": lambda: made.as_subclass(SaliencyMap),
        "boxes": lambda: tv_tensors.BoundingBoxes(torch.rand(3, 4), format="XYXY", canvas_size=(8, 8)),
        "video": lambda: made.as_subclass(tv_tensors.Video),
    }
    return changed[how]() if how in changed else made


def array(shape: tuple[int, ...], dtype: str = "uint8", how: str = "", seed: int = 0) -> np.ndarray:
    """A numpy array of random numbers, those of floats in [0, 1)."""
    rng, kind = np.random.default_rng(seed), np.dtype(dtype)
    values = rng.random(shape)
    if how in ("nan", "inf") and values.size:
        values.reshape(-1)[0] = float(how)
    values = {"negative": -values, "large": values * 1e6, "zeros": values * 0, "ones": values * 0 + 1}.get(how, values)
    if kind.kind in "iu":
        values = np.nan_to_num(values, posinf=0) * 255
    if kind.kind in "iubO":
        values = np.clip(values, 0, 127 if kind.itemsize == 1 and kind.kind == "i" else 255)
    made = (values > 0.5) if kind.kind == "b" else values.astype(kind)
    if how == "strided" and shape:
        return np.stack([made, made], -1)[..., 0]
    if how == "flipped" and shape:
        return made[::-1]
    if how == "fixed" and shape:
        made.flags.writeable = False
    return made


def drawn_sizes(rng: random.Random) -> Sizes:
    """Mostly an ordinary small batch."""
    return Sizes(rng.choice([0, 1, 2, 3, 4, 4]), rng.choice([1, 2, 3, 3, 3, 4]), rng.randint(1, 14), rng.randint(1, 14))


def _tensor(rng: random.Random, shape: tuple[int, ...], dtypes: tuple[str, ...], how: str | None = None) -> str:
    how = rng.choice(("", "", "", "strided", "channels_last", "flipped", "expanded")) if how is None else how
    return f"tensor({shape}, {rng.choice(dtypes)!r}, {how!r}, {rng.randint(0, 99)})"


def _of(*texts: str) -> Maker:
    return lambda rng, sizes: rng.choice(texts)


def _images(rng: random.Random, s: Sizes) -> str:
    dtype = random.Random(str(s)).choice((*FLOATS, "uint8", "uint8", "uint16"))  # one for all images of a call
    return _tensor(rng, s.images, (dtype,))


def _maps(rng: random.Random, s: Sizes) -> str:
    size = s.maps if rng.random() < 0.7 else (s.b, rng.randint(1, 9), rng.randint(1, 9))
    return _tensor(rng, size, FLOATS)


def _labels(rng: random.Random, s: Sizes) -> str:
    numbers = [rng.randint(0, 2) for _ in range(s.b)]
    listed = f"np.array({numbers}, dtype=int)"
    return rng.choice([f"torch.tensor({numbers}, dtype=torch.int64)", f"{numbers}", listed, f"tuple({numbers})"])


def _classes(rng: random.Random, s: Sizes) -> str:
    return f"torch.tensor({[rng.randint(0, 2) for _ in range(s.b)]}, dtype=torch.int64)"


def _ids(rng: random.Random, s: Sizes) -> str:
    numbers = [rng.randint(0, 5) for _ in range(s.b)]
    return rng.choice([f"{numbers}", f"[*map(str, {numbers})]", f"torch.tensor({numbers}, dtype=torch.int64)"])


def _rows(rng: random.Random, s: Sizes) -> str:
    return f"torch.tensor({[rng.randrange(s.b) for _ in range(s.b)]}, dtype=torch.int64)"


def _masks(rng: random.Random, s: Sizes) -> str:
    return _tensor(rng, s.maps, ("bool",))


def _picture(rng: random.Random, s: Sizes) -> str:
    shape = rng.choice([(s.h, s.w), (s.h, s.w, 3), (s.h, s.w, 3), (s.h, s.w, 1)])
    return f"array({shape}, {rng.choice(('uint8', 'uint8', 'float32', 'uint16'))!r}, '', {rng.randint(0, 99)})"


def _stack(rng: random.Random, s: Sizes) -> str:
    return f"array({(s.b, s.h, s.w, 3)}, {rng.choice(('uint8', 'float32', 'uint16'))!r}, '', {rng.randint(0, 99)})"


def _samples(rng: random.Random, s: Sizes) -> str:
    """Of a WebDataset pipeline."""
    image = wild(rng, s) if rng.random() < 0.1 else "PIL.Image.new('RGB', (8, 8))"
    label = wild(rng, s) if rng.random() < 0.1 else "0"
    return f"[{{'__key__': key(), 'png': {image}, 'cls': {label}}}] * {s.b}"


def _described(rng: random.Random, s: Sizes) -> str:
    size = (s.b, max(1, s.c), s.h, s.w)
    return f"mixing.describe(tensor({s.maps}, seed={rng.randint(0, 99)}), tensor({size}), masks.otsu, [0] * {s.b})"


def _plan(rng: random.Random, s: Sizes) -> str:
    fill = rng.choice(["source", "inpaint"])
    place = rng.choice(["source", "random"]) if fill == "inpaint" else "source"
    drawn = f"mixing.draw({s.b}, {s.b}, place={place!r})"
    return f"mixing.plan_mix({_described(rng, s)}, {drawn}, fill={fill!r}, place={place!r})"


def _mapping_of_samples(rng: random.Random, s: Sizes) -> str:
    """A sample of face one."""
    images, labels = _images(rng, s), _labels(rng, s)
    key = rng.choice(["image", "img", "", "pixel_values", "Ünïcode", "label", "saliency", "masks"])
    value = images if key.startswith(("im", "pix")) else wild(rng, s)
    return rng.choice(
        [
            images,
            f"({images}, {labels})",
            f"[{images}, {labels}]",
            f"{{'image': {images}, 'labels': {labels}}}",
            f"{{'image': {images}, 'mask': {_masks(rng, s)}}}",
            f"{{'image': {images}, {key!r}: {value}}}",
            f"({images}, {{'labels': {labels}, {rng.choice(['1', 'None', '(1, 2)', 'b_key'])!r}: {wild(rng, s)}}})",
            f"({images}, {wild(rng, s)})",
            f"{{'image': {images}, 'saliency': {_maps(rng, s)}}}",
            f"({images}, tensor({s.maps}, 'float32', 'saliency'))",
            f"({images}, [{', '.join(f'{{{chr(39)}boxes{chr(39)}: boxes({s.h}, {s.w})}}' for _ in range(s.b))}])",
            f"({images}, points({s.b}, {s.h}, {s.w}))",
        ]
    )


def _donors(rng: random.Random, s: Sizes) -> str:
    picture = _picture(rng, s)
    own = [f"{{'image': {picture[: picture.rindex(',')]}, {seed})}}" for seed in range(rng.randint(0, 3))]
    if own and rng.random() < 0.3:
        strange = f"{{'image': {_picture(rng, s)}, {rng.choice(['id', 'label', 'mask'])!r}: {wild(rng, s)}}}"
        own[0] = rng.choice([wild(rng, s), f"{{'image': {wild(rng, s)}}}", strange])
    return f"[{', '.join(own)}]"


KINDS: dict[str, Maker] = {
    "images": _images,
    "maps": _maps,
    "masks": _masks,
    "labels": _labels,
    "classes": _classes,
    "ids": _ids,
    "rows": _rows,
    "picture": _picture,
    "donors": _donors,
    "described": _described,
    "plan": _plan,
    "sample": _mapping_of_samples,
    "rgb": lambda rng, s: _tensor(rng, (s.b, 3, s.h, s.w), FLOATS),
    "guides": lambda rng, s: _tensor(rng, (s.b, 3, s.h, s.w), ("float32", "float64")),
    "kept": lambda rng, s: _tensor(rng, (s.h, s.w), ("bool",)),
    "boxes": lambda rng, s: f"tensor(({s.b}, {rng.choice(['4', '4, 2'])}), seed={rng.randint(0, 99)}) * 10",
    "points": lambda rng, s: f"tensor(({s.b}, 2), seed={rng.randint(0, 99)}) * 10",
    "distances": lambda rng, s: _tensor(rng, (s.b, s.b), FLOATS),
    "eligible": lambda rng, s: _tensor(rng, (s.b, s.b), ("bool",)),
    "thresholds": lambda rng, s: _tensor(rng, (s.b,), FLOATS),
    "sums": lambda rng, s: f"bits.bit_sums(tensor({s.images}))",
    "draws": lambda rng, s: f"mixing.draw({s.b}, {s.b}, place={rng.choice(['source', 'random'])!r})",
    "batch": lambda rng, s: str(s.b),
    "pool": lambda rng, s: str(s.b + rng.randint(0, 3)),
    "shape": lambda rng, s: f"({s.b}, {s.w})",
    "size": lambda rng, s: f"({s.h}, {s.w})",
    "p": _of("0", "1", "0.5", "1.0", "np.float32(0.5)", "np.float64(1)"),
    "share": _of("0.5", "0.95", "1", "0.1", "np.float32(0.25)"),
    "count": _of("1", "2", "50", "10**30"),
    "number": _of("0", "1", "2"),
    "seed": _of("0", "7", "2**62"),
    "width": _of("None", "0", "1", "2.5", "7", "300", "1e9", "np.float32(3)"),
    "fill": _of("'source'", "'inpaint'"),
    "place": _of("'source'", "'random'"),
    "target_class": _of("'any'", "'same'", "'different'"),
    "preset": _of("'otsu'", "'guided'", "'grabcut'", "masks.otsu"),
    "flag": _of("True", "False"),
    "generator": _of("torch.Generator().manual_seed(3)", "None"),
    "mean": _of("[0.5]", "(0.485, 0.456, 0.406)", "None", "[0]"),
    "std": _of("[0.5]", "(0.229, 0.224, 0.225)", "None", "[1]"),
    "name": _of("'mine'", "'a b'", "'ü'"),
    "transform": _of("None", "lambda image: image"),
    "target": _of("function", "'json:loads'", "masks.otsu"),
    "backend": _of(
        "'spectral_residual'",
        "'manifold_ranking'",
        "'salient_object'",
        "function",
        "spectral_residual.SpectralResidual()",
    ),
    "getter": _of("None", "'default'", "lambda sample: None"),
    "key": _of("'id'", "None", "lambda sample: None"),
    "roles": _of("None", "{}", "{'image': 'image'}", "{1: 'mask'}", "{'image': 'keep'}"),
    "mode": _of("'source'", "'class'", "'pool'", "'balanced'"),
    "text": _of("'label'", "'cub'", "'resnet50'", "''"),
    "rate": _of("0.1", "None", "1e-3"),
    "layer": _of("None", "''", "'0'", "model[0]"),
    "explained": _of("'label'", "'predicted'", "1", "0"),
    "looked_at": _of("masks.otsu", "guided.guided", "lambda maps, images: None", "lambda maps, images: (1, 2)"),
    "model": _of("model", "model", "nn.Identity()"),
    "cells": _of("4", "8", "16", "6"),
    "stack": _stack,
    "samples": _samples,
    "class_names": _of("real().classes"),
    "folder": _of("made()", "Path(made())", "synthetic.SyntheticPool(made())"),
    "real": _of("real()"),
    "items": lambda rng, s: f"[({_tensor(rng, (3, s.h, s.w), FLOATS)}, {rng.randint(0, 3)})] * {s.b}",
}

# What no argument of ours is, or only by chance.
_ANYTHING = (
    "None", "True", "False", "0", "1", "-1", "2**63", "10**400", "-(10**30)", "10**5000", "0.5", "-0.5", "1.5",
    "1e300", "float('nan')", "float('inf')", "-float('inf')", "1j", "'0.5'", "''", "'otsu'", "'same'", "'ä\\x00\\n'",
    "'x' * 3000", "b'x'", "[]", "()", "{}", "set()", "{1, 2}", "[None]", "[[]]", "['a', 'b']", "[1, 2]",
    "[1.5, float('nan')]", "{'a': 1}", "{1: 2, None: 3, (1, 2): []}", "object()", "object", "int", "len", "function",
    "raising", "lambda: 0", "range(3)", "iter([1, 2])", "Fraction(1, 2)", "Decimal('0.5')", "Decimal('nan')",
    "np.bool_(True)", "np.int64(1)", "np.float32(0.5)", "np.float64('nan')", "np.float16(0.25)", "np.longdouble(0.5)",
    "np.complex64(1j)", "np.str_('otsu')", "np.array(0.5)", "np.array([])", "np.array(['a'])", "np.array([None])",
    "np.datetime64('2020')", "np.array([1, 2])", "torch.tensor(0.5)", "torch.tensor(1)", "torch.tensor(True)",
    "torch.tensor([0.5])", "torch.tensor([])", "torch.tensor(float('nan'))", "torch.tensor(1j)",
    "torch.tensor(1, device='meta')", "torch.tensor(3).to_sparse()",
    "torch.nested.nested_tensor([torch.rand(2), torch.rand(3)])", "torch.float32", "torch.device('cpu')",
    "torch.Size([2])", "nn.Identity()", "nn.Linear(2, 2)", "model", "torch.Generator()",
    "PIL.Image.new('RGB', (8, 8))", "PIL.Image.new('1', (4, 4))", "Path('/nowhere')",
    "types.SimpleNamespace(shape=(1,), dtype=None)", "slice(3)", "...", "NotImplemented", "Odd()", "ValueError('x')",
    "np.random.default_rng(0)", "random.Random(0)", "bytearray(3)", "memoryview(b'abc')",
)  # fmt: skip


def wild(rng: random.Random, sizes: Sizes) -> str:
    """Anything: an odd object, an odd tensor or array, or what another argument takes."""
    way = rng.random()
    if way < 0.35:
        return rng.choice(_ANYTHING)
    shape = rng.choice([sizes.images, sizes.images, sizes.maps, sizes.images[:1], _odd_shape(rng), _odd_shape(rng)])
    if way < 0.75:
        dtype, how = rng.choice((*FLOATS, *INTEGERS, *STRANGE)), rng.choice((*HOWS, *STATES, *STATES))
        text = f"tensor({shape}, {dtype!r}, {how!r}, {rng.randint(0, 99)})"
        return text if makes(text) else f"tensor({shape}, {dtype!r}, '', 0)"
    if way < 0.85:
        dtype = rng.choice(
            ("uint8", "float32", "float64", "bool", "int64", "complex64", "object", ">f4", "U3", "float16")
        )
        how = rng.choice(("", "nan", "inf", "negative", "flipped", "strided", "fixed"))
        return f"array({shape}, {dtype!r}, {how!r})"
    return rng.choice([maker for kind, maker in KINDS.items() if kind not in ("sample", "donors")])(rng, sizes)


def makes(text: str) -> bool:
    """Whether torch can make such a tensor at all."""
    try:
        eval(text, {"tensor": tensor})
    except (RuntimeError, NotImplementedError):
        return False
    return True


def _odd_shape(rng: random.Random) -> tuple[int, ...]:
    return tuple(rng.choice([0, 1, 2, 3, 4, 5, 8]) for _ in range(rng.randint(0, 6)))
