"""Random calls of the public API: sane and wild arguments of every kind, in every place.

``run(seed, count)`` makes calls and judges them. A call may give a result, one of our own errors, or ``TypeError``
where Python itself cannot bind the arguments, or be refused by a host (torch, Albumentations) before it reaches us. All
else is a fault, and so are a warning, an argument that was changed, and a result that breaks a simple truth. Calls are
text, so a fault is printed as what :func:`again` repeats: ``again("masks.otsu(None, None)")``.
"""

from __future__ import annotations

import argparse
import functools
import json
import random
import site
import sys
import tempfile
import traceback
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader
from torchvision import tv_tensors

import sgdmix_albu
from sgdmix_albu import albumentations as face_two
from sgdmix_albu import expand, masks, mixing, saliency, synthetic, torchvision
from sgdmix_albu.albumentations.fork import albumentations
from sgdmix_albu.audit import measures
from sgdmix_albu.datasets import get_dataset
from sgdmix_albu.errors import SGDMixError
from sgdmix_albu.mixing import bits, blending, colour, composition, fill, grabcut, guided, labels, selection, visibility
from sgdmix_albu.mixing.masks import _PRESETS
from sgdmix_albu.recipes import settings as hyper
from sgdmix_albu.saliency import base, captum, manifold_ranking, salient_object, spectral_residual
from sgdmix_albu.saliency.catalogue import BACKENDS

from .values import KINDS, Sizes, array, drawn_sizes, tensor, wild

__all__ = ["CALLS", "Endings", "Fault", "again", "run"]

_PACKAGES = tuple(site.getsitepackages())
_HOME = str(Path(sgdmix_albu.__file__).parent)
_USERS = ("= mask(", "self.function(", "self.preprocess(", "transform(")  # where functions of the user's are called
_WILD = 0.2  # of the arguments
_GIVEN = 0.4  # of those that may be left out


@dataclass(frozen=True)
class Fault:
    """A call that ended as none may, and how."""

    call: str
    came: str

    def __str__(self) -> str:
        return f"{self.call}\n    {self.came}"


@dataclass
class Endings:
    """How calls ended: number by outcome, names that gave a result at least once, and the faults."""

    outcomes: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join([f"{count:8}  {name}" for name, count in self.outcomes.items()] + [*map(str, self.faults)])


@dataclass(frozen=True)
class _Call:
    """One way to call the API.

    Attributes:
        name: The public name that is attacked.
        made: What is called, as text.
        needed: Kinds of the arguments by place.
        other: Kinds of those by keyword, which may be left out unless the kind ends with "!".
        truth: What must hold of a result, given the arguments.
    """

    name: str
    made: str
    needed: tuple[str, ...]
    other: dict[str, str]
    truth: Callable[..., None] | None = None


def run(seed: int, count: int, *, only: str = "") -> Endings:
    """Make ``count`` random calls: the same for the same seed.

    Args:
        seed: Of all that is drawn.
        count: How many calls.
        only: A part of the names to call; "" for all.
    """
    tally = Endings()
    calls = [call for call in CALLS if only in call.name]
    for number in range(count):
        rng = random.Random(f"{seed}:{number}")
        call = calls[number % len(calls)]
        given = _drawn(rng, call)
        outcome, came = _judged(call, given)
        tally.outcomes[outcome] += 1
        if outcome == "result":
            tally.answered[call.name] += 1
        if outcome == "fault":
            tally.faults.append(Fault(f"{call.made}({given})", came))
    return tally


def again(text: str) -> Any:
    """Repeat a call that was printed, and show what comes."""
    torch.manual_seed(0)
    return eval(text, _NAMES)


def _drawn(rng: random.Random, call: _Call) -> str:
    """Arguments for a call."""
    sizes = drawn_sizes(rng)
    if not sizes.b and rng.random() < 0.5:
        sizes = Sizes(3, 3, 8, 8)

    def one(kind: str) -> str:
        return wild(rng, sizes) if rng.random() < _WILD else KINDS[kind](rng, sizes)

    given = [one(kind) for kind in call.needed]
    for name, kind in call.other.items():
        if kind.endswith("!") or rng.random() < _GIVEN:
            given.append(f"{name.removesuffix('!')}={one(kind.removesuffix('!'))}")
    if rng.random() < 0.01:
        given.append("unheard_of=1")
    return ", ".join(given)


def _judged(made: _Call, given: str) -> tuple[str, str]:
    """How a call ends, and what came."""
    torch.manual_seed(0)
    kept: list[tuple[Any, Any]] = []

    def noting(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            leaves = tree_leaves((args, kwargs))
            kept.extend((leaf, _copied(leaf)) for leaf in leaves if isinstance(leaf, Tensor | np.ndarray))
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                result = function(*args, **kwargs)
            if made.truth is not None:
                made.truth(result, *args, **kwargs)
            return result

        return call

    with _registries_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of making the arguments
        try:
            eval(f"noting({made.made})({given})", {**_NAMES, "noting": noting})
        except SGDMixError as error:
            return ("fault", f"{error!r} has no message") if not str(error) else ("our error", "")
        except Exception as error:
            return _foreign(error)
    changed = [now for now, before in kept if not _same(now, before)]
    return ("fault", f"an argument was changed: {changed[0]!r:.200}") if changed else ("result", "")


def _foreign(error: Exception) -> tuple[str, str]:
    """An error that is not ours: whether Python, a host or the user raised it before our code could refuse."""
    frames = traceback.extract_tb(error.__traceback__)
    # The Albumentations transform hands a call on to its host, which has not refused it yet.
    ours = [
        number
        for number, frame in enumerate(frames)
        if frame.filename.startswith(_HOME) and frame.line != "return super().__call__(**sample)"
    ]
    last = frames[-1]
    if (
        isinstance(error, UsersError)
        or last.name == "function"
        or (isinstance(error, TypeError) and any(part in last.line for part in _USERS))
    ):
        return "user's error", ""
    if isinstance(error, RuntimeError | MemoryError) and "allocate memory" in str(error):
        return "out of memory", ""
    if not ours and isinstance(error, TypeError) and last.filename in (__file__, "<string>"):
        return "unbound", ""
    if not ours and last.filename.startswith(_PACKAGES):
        return "host's error", ""
    if ours and any("torch/nn/modules" in frame.filename for frame in frames[ours[-1] :]):
        return "model's error", ""  # a classifier of three channels was given two
    where = frames[ours[-1] if ours else -1]
    return (
        "fault",
        f"{Path(where.filename).name}:{where.lineno} {where.name}: {type(error).__name__}: {str(error)[:300]}",
    )


@contextmanager
def _registries_kept() -> Iterator[None]:
    """Names that a call registers are gone after it."""
    before = [(registry, dict(registry._rows)) for registry in (BACKENDS, _PRESETS)]
    try:
        yield
    finally:
        for registry, rows in before:
            registry._rows = rows


def _copied(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_nested or value.is_quantized:
        return None
    return value.detach().clone()


def _same(now: Any, before: Any) -> bool:
    if before is None:
        return True
    if isinstance(now, np.ndarray):
        return now.dtype.kind == "O" or now.tobytes() == before.tobytes()
    now = now.detach().as_subclass(Tensor)
    before = before.as_subclass(Tensor)
    if now.dtype.itemsize == 1:  # torch compares no floats of 8 bits
        now, before = now.view(torch.uint8), before.view(torch.uint8)
    return now.shape == before.shape and bool(((now == before) | (now != now)).all())


class UsersError(Exception):
    """What functions of the user's raise."""


class Odd:
    """An object that refuses all that is usual."""

    def __repr__(self) -> str:
        raise UsersError

    def __eq__(self, other: object) -> bool:
        raise UsersError

    __hash__ = None  # type: ignore[assignment]


def raising(*args: Any, **kwargs: Any) -> Any:
    """A function of the user's that fails."""
    raise UsersError


def function(images: Tensor) -> Tensor:
    """A saliency of the user's."""
    return images.float().mean(1)


def boxes(height: int, width: int) -> Any:
    """Two boxes of an image."""
    return tv_tensors.BoundingBoxes([[0, 0, 2, 2], [1, 1, 9, 9]], format="XYXY", canvas_size=(height, width))


def points(count: int, height: int, width: int) -> Any:
    """Three key points of each image."""
    return tv_tensors.KeyPoints(torch.rand(count, 3, 2) * 10, canvas_size=(height, width))


@functools.cache
def made() -> str:
    """A folder that ``generate`` wrote."""
    out = tempfile.mkdtemp(prefix="sgdmix-calls-")
    settings = expand.Settings("spectral_residual", "otsu", size=32, multiplier=2)
    expand.generate(None, out, dataset="aviary", limit=6, settings=settings)
    return out


def key() -> str:
    """What WebDataset calls the first image that was expanded."""
    return next(iter(synthetic.SyntheticPool(made()).by_source)).rpartition(".")[0]


@functools.cache
def real() -> Any:
    """The images that it was made from."""
    return get_dataset("aviary")


def face_one_on(settings: dict[str, Any], *samples: Any) -> Any:
    """The batch face, made with such settings and used on one sample after the other."""
    transform = torchvision.SGDMix(**{"saliency": "spectral_residual", **settings})
    return [transform(*sample) if isinstance(sample, tuple) and sample else transform(sample) for sample in samples][-1]


def face_two_on(settings: dict[str, Any], composed: bool, **sample: Any) -> Any:
    """The face of single samples, alone or in a pipeline."""
    transform = face_two.SGDMix(**{"saliency": "spectral_residual", "p": 1.0, **settings})
    pipeline = (
        albumentations.Compose([transform], seed=0, additional_targets={"saliency": "mask"}) if composed else transform
    )
    return pipeline(**sample)


def backend_on(spec: Any, images: Any, labels: Any = None, *, coarse: bool = False, **options: Any) -> Any:
    """A backend, made and used."""
    backend = saliency.get_backend(spec, **options)
    return backend.coarse(images, labels) if coarse is True else backend(images, labels)


def preset_on(name: Any, maps: Any, images: Any) -> Any:
    """A mask preset, found and used."""
    return masks.get_mask(name)(maps, images)


def loaded(items: Any) -> Any:
    """Items through a loader with our collate."""
    return list(DataLoader(items, batch_size=2, collate_fn=saliency.collate))


def item_of(*args: Any, index: Any = 0, **settings: Any) -> Any:
    """A data set with synthetic images, and one item of it."""
    return synthetic.SyntheticMix(*args, **settings)[index]


def batch_of(out: Any, batch: Any = None, **settings: Any) -> Any:
    """The function for Hugging Face data sets, used on a batch."""
    change = synthetic.synthetic_batches(out, **{"class_names": real().classes, **settings})
    plain = {"image": [PIL.Image.new("RGB", (8, 8))] * 2, "label": [0, 1], "source": ["a", "b"]}
    return change(plain if batch is None else batch)


def samples_of(samples: Any, out: Any, **settings: Any) -> Any:
    """The stage of a WebDataset pipeline, run to its end."""
    return list(synthetic.synthetic_samples(samples, out, **settings))


def decided(images: Any, **told: Any) -> Any:
    """The batch face's two halves: decide, then composite."""
    transform = torchvision.SGDMix("spectral_residual", target_class="same")
    return transform.transform(images, transform.make_params([images], **told))


torch.manual_seed(0)
_MODEL = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
# What the texts of calls may name.
_NAMES = {
    "Decimal": Decimal,
    "Fraction": Fraction,
    "Odd": Odd,
    "PIL": PIL,
    "Path": Path,
    "array": array,
    "backend_on": backend_on,
    "base": base,
    "batch_of": batch_of,
    "blending": blending,
    "boxes": boxes,
    "captum": captum,
    "colour": colour,
    "composition": composition,
    "decided": decided,
    "face_one_on": face_one_on,
    "face_two": face_two,
    "face_two_on": face_two_on,
    "fill": fill,
    "function": function,
    "functools": functools,
    "hyper": hyper,
    "item_of": item_of,
    "key": key,
    "labels": labels,
    "loaded": loaded,
    "made": made,
    "manifold_ranking": manifold_ranking,
    "guided": guided,
    "grabcut": grabcut,
    "masks": masks,
    "measures": measures,
    "mixing": mixing,
    "nn": nn,
    "np": np,
    "expand": expand,
    "points": points,
    "preset_on": preset_on,
    "raising": raising,
    "random": random,
    "real": real,
    "saliency": saliency,
    "samples_of": samples_of,
    "bits": bits,
    "selection": selection,
    "salient_object": salient_object,
    "spectral_residual": spectral_residual,
    "synthetic": synthetic,
    "tensor": tensor,
    "torch": torch,
    "torchvision": torchvision,
    "types": types,
    "visibility": visibility,
    "model": _MODEL,
}


def _alike(result: Any, first: Any, *rest: Any, **other: Any) -> None:
    """A batch of the first argument's shape and dtype, without numbers that broke on the way."""
    batch = getattr(result, "images", result)
    assert batch.shape == first.shape, f"{batch.shape} from {first.shape}"
    assert batch.dtype == first.dtype, f"{batch.dtype} from {first.dtype}"
    if first.dtype.is_floating_point and bool(first.isfinite().all()):
        assert bool(batch.isfinite().all()), "a number broke"


def _images_like(result: Any, plan: Any, images: Any, *rest: Any, **other: Any) -> None:
    _alike(result, images)


def _mask_like(result: Any, maps: Any, images: Any, *rest: Any, **other: Any) -> None:
    assert result.masks.dtype == torch.bool
    assert result.masks.shape == (len(maps), *images.shape[-2:]), f"{result.masks.shape}"
    assert bool(result.thresholds.isfinite().all()), "a threshold broke"


def _mask_of_preset(result: Any, name: Any, maps: Any, images: Any) -> None:
    _mask_like(result, maps, images)


def _in_unit(result: Any, *args: Any, **other: Any) -> None:
    assert bool(((result >= 0) & (result <= 1)).all()), "values outside [0, 1]"


def _map_like(result: Any, spec: Any, images: Any, *args: Any, coarse: bool = False, **other: Any) -> None:
    assert result.dtype == torch.float32
    assert coarse is True or result.shape == images.shape[:1] + images.shape[-2:], f"{result.shape}"
    _in_unit(result)


def _share_or_nan(result: Any, *args: Any, **other: Any) -> None:
    assert bool((result.isnan() | ((result >= 0) & (result <= 1))).all()), f"{result}"


def _sample_like(result: Any, *samples: Any) -> None:
    """The same structure; what is no picture comes back as the very object."""
    before = samples[-1]
    if isinstance(before, Tensor):
        _alike(result.as_subclass(Tensor), before)
        return
    assert type(result) is type(before), f"{type(result)} from {type(before)}"
    pairs = zip(tree_leaves(before), tree_leaves(result), strict=True)
    for old, new in pairs:
        if isinstance(old, Tensor) and old.layout == torch.strided and old.ndim == 4:
            _alike(new.as_subclass(Tensor), old.as_subclass(Tensor))
            assert type(new) is type(old)
        elif not isinstance(old, Tensor):
            assert new is old, f"{old!r} came back as {new!r}"


def _picture_like(result: Any, **sample: Any) -> None:
    for name in ("image", "images"):
        if isinstance(sample.get(name), np.ndarray):
            assert result[name].shape == sample[name].shape, f"{result[name].shape} from {sample[name].shape}"
            assert result[name].dtype == sample[name].dtype, f"{result[name].dtype} from {sample[name].dtype}"


def _storable(result: Any, *args: Any, **other: Any) -> None:
    """Settings are written into the folder of a run."""
    json.dumps(vars(result))


def _kinds(text: str) -> dict[str, str]:
    return dict(part.split(":") if ":" in part else (part, part) for part in text.split())


def _call(
    name: str, made: str = "", needed: str = "", other: str = "", truth: Callable[..., None] | None = None
) -> _Call:
    return _Call(f"sgdmix_albu.{name}", made or name, tuple(needed.split()), _kinds(other), truth)


_MIX = "max_coverage:share target_class feather:width fill place candidates:count"
_FACES = f"p {_MIX} mask:preset exclude_duplicates:flag mean std layer"
_ONE = "functools.partial(face_one_on, {})"
_TWO = "functools.partial(face_two_on, {}, {})"
_SINGLE = "image:picture! sgdmix_metadata:donors!"
_PAIRS = ("coverage", "spill", "leak", "overlap", "void_share")

CALLS = [
    _call(
        "mixing.mix_batch",
        needed="images maps",
        other=f"p {_MIX} labels mask:preset exclude_duplicates:flag ids generator draws",
        truth=_alike,
    ),
    _call("mixing.describe", needed="maps images looked_at", other="labels"),
    _call("mixing.draw", needed="batch pool", other="p candidates:count place generator"),
    _call(
        "mixing.plan_mix", needed="described draws", other="max_coverage:share target_class repeats:eligible fill place"
    ),
    _call("mixing.repeats_of", needed="images images", other="ids pool_ids:ids by_pixels:flag sums pool_sums:sums"),
    _call("mixing.Described", needed="maps masks thresholds sums eligible", other="labels"),
    _call("mixing.composition.changed_only", "composition.changed_only", needed="plan images images"),
    _call(
        "mixing.composition.compose",
        "composition.compose",
        needed="plan images images",
        other="feather:width hard:flag",
        truth=_images_like,
    ),
    _call("mixing.fill.grown", "fill.grown", needed="masks"),
    _call("mixing.fill.inpaint", "fill.inpaint", needed="images masks", truth=_alike),
    _call("mixing.fill.inpaint_nearest", "fill.inpaint_nearest", needed="images masks", truth=_alike),
    _call("mixing.selection.pairwise_distances", "selection.pairwise_distances", needed="maps maps"),
    _call("mixing.selection.nearest", "selection.nearest", needed="distances eligible"),
    _call(
        "mixing.selection.draw_candidates", "selection.draw_candidates", needed="batch pool count", other="generator"
    ),
    _call("mixing.selection.uniform", "selection.uniform", needed="shape generator"),
    _call("mixing.selection.class_allows", "selection.class_allows", needed="labels labels target_class"),
    _call("mixing.bits.same_pixels", "bits.same_pixels", needed="images images", other="sums pool_sums:sums"),
    _call("mixing.bits.bit_sums", "bits.bit_sums", needed="images"),
    _call("mixing.bits.as_integers", "bits.as_integers", needed="images"),
    _call("mixing.selection.same_ids", "selection.same_ids", needed="ids ids"),
    _call(
        "mixing.blending.blend",
        "blending.blend",
        needed="images images rows masks",
        other="feather:width",
        truth=_alike,
    ),
    _call("mixing.blending.edge_width", "blending.edge_width", needed="fill width"),
    _call("mixing.blending.feathered", "blending.feathered", needed="masks width", truth=_in_unit),
    _call("mixing.blending.softened", "blending.softened", needed="masks", truth=_in_unit),
    _call("masks.otsu", needed="maps images", truth=_mask_like),
    _call("masks.otsu_threshold", needed="maps"),
    _call("masks.working_maps", needed="maps"),
    _call("masks.rounded", needed="maps", truth=_in_unit),
    _call("masks.above", needed="maps thresholds images"),
    _call("masks.get_mask", needed="preset"),
    _call("masks.get_mask", "preset_on", "preset maps images", truth=_mask_of_preset),
    _call("masks.register_mask", needed="name target", other="extra:name"),
    _call("masks.list_masks"),
    _call("mixing.guided.guided", "guided.guided", needed="maps images", truth=_mask_like),
    _call("mixing.guided.guided_maps", "guided.guided_maps", needed="maps guides", truth=_in_unit),
    _call("mixing.guided.guided_filter", "guided.guided_filter", needed="maps guides"),
    _call("mixing.grabcut.grabcut", "grabcut.grabcut", needed="maps images", truth=_mask_like),
    _call("mixing.visibility.visible_fractions", "visibility.visible_fractions", needed="kept boxes", truth=_in_unit),
    _call("mixing.visibility.visible_points", "visibility.visible_points", needed="kept points"),
    _call("mixing.labels.class_ids", "labels.class_ids", needed="labels batch", other="name"),
    _call("mixing.colour.to_rgb", "colour.to_rgb", needed="images", other="mean std"),
    _call("mixing.colour.to_float", "colour.to_float", needed="images"),
    _call("mixing.colour.normalization_of", "colour.normalization_of", needed="images"),
    _call("mixing.colour.unnormalized", "colour.unnormalized", needed="images", other="mean! std!"),
    _call("saliency.get_backend", needed="backend", other="microbatch:count model:target"),
    _call("saliency.get_backend", "backend_on", "backend images", "labels coarse:flag microbatch:count", _map_like),
    _call("saliency.register_backend", needed="name target", other="extra:name"),
    _call("saliency.list_backends"),
    _call("saliency.normalize_maps", needed="maps", truth=_in_unit),
    _call("saliency.SaliencyMap", needed="maps"),
    _call("saliency.collate", needed="items"),
    _call("saliency.collate", "loaded", "items"),
    _call("saliency.manifold_ranking.manifold_ranking", "manifold_ranking.manifold_ranking", "rgb", truth=_in_unit),
    _call("saliency.manifold_ranking.ManifoldRanking", "manifold_ranking.ManifoldRanking", other="microbatch:count"),
    _call("saliency.salient_object.SalientObject", "salient_object.SalientObject", other="microbatch:count"),
    _call("saliency.spectral_residual.SpectralResidual", "spectral_residual.SpectralResidual", "", "microbatch:count"),
    _call("saliency.spectral_residual.SpectralResidual", "spectral_residual.SpectralResidual().attribute", "images"),
    _call("saliency.base.FunctionBackend", "base.FunctionBackend", "target", "microbatch:count"),
    _call("saliency.captum.GradCam", "captum.GradCam", "model", "layer target:explained microbatch:count"),
    _call("saliency.captum.GradCam", "captum.GradCam(model)", "rgb classes"),
    _call(
        "saliency.captum.GradCam",
        "functools.partial(backend_on, 'gradcam')",
        "rgb classes",
        "model! layer target:explained microbatch:count coarse:flag preprocess:target",
    ),
    _call(
        "saliency.captum", "functools.partial(backend_on, 'saliency', model=model)", "rgb classes", "target:explained"
    ),
    _call("saliency.captum", "functools.partial(backend_on, 'occlusion', model=model)", "rgb classes", "coarse:flag"),
    _call(
        "torchvision.SGDMix",
        "functools.partial(torchvision.SGDMix, 'spectral_residual')",
        other=f"{_FACES} memory:number min_visibility:share labels_getter:getter key_getter:key saliency_getter:key "
        "roles generator strength:share preserve:text",
    ),
    _call("torchvision.SGDMix", "torchvision.SGDMix", "backend", "model layer"),
    _call("torchvision.SGDMix", _ONE.format("{}"), "sample", truth=_sample_like),
    _call(
        "torchvision.SGDMix",
        _ONE.format("{'memory': 3, 'target_class': 'different', 'key_getter': lambda _: None}"),
        "sample sample",
        truth=_sample_like,
    ),
    _call("torchvision.SGDMix", _ONE.format("{'memory': 3, 'mask': 'otsu'}"), "sample sample", truth=_sample_like),
    _call(
        "torchvision.SGDMix",
        _ONE.format("{'saliency': 'given', 'mask': 'otsu', 'feather': 2}"),
        "sample",
        truth=_sample_like,
    ),
    _call("torchvision.SGDMix", _ONE.format("{'roles': {1: 'instances'}, 'key_getter': 'id'}"), "sample"),
    _call("torchvision.SGDMix", "decided", "images", "labels ids maps", _alike),
    _call(
        "albumentations.SGDMix",
        "functools.partial(face_two.SGDMix, 'spectral_residual')",
        other=f"{_FACES} metadata_key:name saliency_key:name label_key:name id_key:name instance_keys:ids "
        "remember:number",
    ),
    _call("albumentations.SGDMix", "face_two.SGDMix", "backend", "model"),
    _call(
        "albumentations.SGDMix",
        _TWO.format("{}", True),
        other=f"{_SINGLE} label:batch id:batch mask:picture saliency:picture",
        truth=_picture_like,
    ),
    _call(
        "albumentations.SGDMix",
        _TWO.format("{'target_class': 'different'}", False),
        other=f"{_SINGLE} label:text id:seed",
        truth=_picture_like,
    ),
    _call(
        "albumentations.SGDMix",
        _TWO.format("{'saliency': 'given'}", True),
        other=f"{_SINGLE} saliency:picture!",
        truth=_picture_like,
    ),
    _call(
        "albumentations.SGDMix",
        _TWO.format("{'target_class': 'same'}", False),
        other="images:stack! sgdmix_metadata:donors label:labels id:ids masks:stack",
        truth=_picture_like,
    ),
    _call("synthetic.SyntheticMix", "item_of", "real folder", "p mode transform source_keys:ids seed index:number"),
    _call("synthetic.SyntheticPool", needed="folder"),
    _call(
        "synthetic.synthetic_batches",
        "batch_of",
        "folder",
        "p mode class_names transform image:text label:text batch:donors",
    ),
    _call("synthetic.synthetic_samples", "samples_of", "samples folder", "p mode class_names"),
    _call(
        "expand.Settings",
        other=f"saliency:backend mask:preset p {_MIX} multiplier:count seed keep_unmixed:flag size:count "
        "image_format:text shards:flag",
        truth=_storable,
    ),
    _call(
        "expand.SaliencySettings", needed="backend", other="model:folder arch:text class_names:folder normalize:text"
    ),
    _call(
        "expand.RefinerSettings", needed="text", other="base:folder preserve:text steps:count guidance:rate device:text"
    ),
    _call("expand.ClassifierSettings", needed="text", other="arch:text class_names:folder normalize:text"),
    _call(
        "recipes.settings.Settings",
        "hyper.Settings",
        "count count rate share p",
        "mode momentum:share warmup:share label_smoothing:share",
    ),
    _call("recipes.settings.diff_mix", "hyper.diff_mix", "text text", "learning_rate:rate"),
    _call("recipes.settings.diff_mix_few_shot", "hyper.diff_mix_few_shot", "text text", "learning_rate:rate"),
    _call("recipes.settings.diff_mix_long_tail", "hyper.diff_mix_long_tail", "text", "learning_rate:rate"),
    *(_call(f"audit.measures.{name}", f"measures.{name}", "masks masks", "", _share_or_nan) for name in _PAIRS),
    _call("audit.measures.area", "measures.area", "masks", truth=_share_or_nan),
    _call("audit.measures.largest_piece_share", "measures.largest_piece_share", "masks", truth=_share_or_nan),
    _call("audit.measures.border_share", "measures.border_share", "masks", "margin:share", _share_or_nan),
    _call("audit.measures.corner_share", "measures.corner_share", "maps", "side:share"),
    _call(
        "audit.measures.shared_spot_share",
        "measures.shared_spot_share",
        "maps",
        "cells:cells bright:width shared:share",
    ),
]


def main() -> int:
    """``python -m tests.attack.calls``: many calls, the numbers, and the faults."""
    parser = argparse.ArgumentParser(description="Call the public API at random, and count how the calls end.")
    parser.add_argument("--count", type=int, default=20_000, metavar="N", help="calls (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--only", default="", metavar="NAME", help="a part of the names to call")
    options = parser.parse_args()
    tally = run(options.seed, options.count, only=options.only)
    print(tally)
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
