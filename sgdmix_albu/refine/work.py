"""One call of a refiner: batches of like strength, the ladder of an adaptive one, and images that come out broken."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sgdmix_albu.devices import exact_device
from sgdmix_albu.mixing.colour import to_float
from sgdmix_albu.refine.batching import in_batches
from sgdmix_albu.refine.denoise import denoise, first_step
from sgdmix_albu.refine.loading import Loaded
from sgdmix_albu.refine.preserve import composite, hole_shares, off_object, strength_map
from sgdmix_albu.refine.setup import RefinerSetup
from sgdmix_albu.refine.strength import vouched
from sgdmix_albu.tensors import sent
from sgdmix_albu.types import Preserve


@dataclass(frozen=True)
class Refined:
    """Refined images and what was done to each.

    Attributes:
        images: (B, 3, H, W), in the dtype they came in.
        strengths: Translation strength S of each; 0 where nothing was done to it, save to its hole.
        timesteps: The diffusion timestep that each was noised to, save its hole; None where S is 0.
        prompts: The prompt of each.
        seeds: The seed of each.
        accepted: False where the mixed image came back: a teacher refused every strength of the ladder, or the
            model's numbers were broken.
        preserve: How the object was protected.
        broken: True where the model gave NaN or infinite numbers, in single precision too.
    """

    images: Tensor
    strengths: tuple[float, ...]
    timesteps: tuple[int | None, ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    accepted: tuple[bool, ...]
    preserve: str
    broken: tuple[bool, ...] = ()


@dataclass
class Work:
    """One call of ``refine``: everything that is known of each image."""

    refiner: RefinerSetup
    load: Callable[[], Loaded]
    images: Tensor
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    masks: Tensor | None
    holes: Tensor | None
    preserve: Preserve
    holed: list[bool] = field(init=False)  # which images have a hole: read once, since a GPU is waited for

    def __post_init__(self) -> None:
        self.masks = None if self.preserve == "none" else self.masks
        self.holed = [False] * len(self.images) if self.holes is None else self.holes.flatten(1).any(1).tolist()
        self.holes = self.holes if any(self.holed) else None

    def fixed(self, strengths: list[float]) -> Refined:
        """Each image at its own strength."""
        images, timesteps, finite = self._run(list(range(len(strengths))), strengths)
        return self._result(images, strengths, timesteps, finite, [not fine for fine in finite])

    def adaptive(self, labels: list[int], ladder: list[float]) -> Refined:
        """Down the ladder; each image stays at the first strength that the teacher vouches for."""
        done, count = self.images.clone(), len(labels)
        strengths, timesteps = [0.0] * count, [None] * count
        accepted, broken = [False] * count, [False] * count
        left = list(range(count))
        for strength in ladder:
            if not left:
                break
            found, times, finite = self._run(left, [strength] * len(left))
            good = vouched(self.refiner.teacher, found, [labels[row] for row in left], self.refiner.tau)
            for place, row in enumerate(left):
                broken[row] = not finite[place]
                if good[place] and finite[place]:
                    done[row], strengths[row], timesteps[row] = found[place], strength, times[place]
                    accepted[row] = True
            left = [row for row in left if not accepted[row]]
        return self._result(done, strengths, timesteps, accepted, broken)

    def _run(self, rows: list[int], strengths: list[float]) -> tuple[Tensor, list[Any], list[bool]]:
        """Refine some rows; images in the rows' order, their timesteps, and whether the model's numbers were finite."""
        refiner = self.refiner
        done = _rows(self.images, rows, self.images.device)
        timesteps: list[Any] = [None] * len(rows)
        finite = [True] * len(rows)
        most = [self._most(row, strength) for row, strength in zip(rows, strengths, strict=True)]
        places = [place for place, strength in enumerate(most) if first_step(strength, refiner.steps) < refiner.steps]
        if not places:
            return done, timesteps, finite
        multiple = self.load().components.multiple  # loaded here, so that its memory is not taken for an image's
        height, width = _working_size(done.shape[-2:], refiner.spec.resolution, multiple)
        # Images of like strength together: they share most of the loop.
        places.sort(key=most.__getitem__)
        parts = in_batches(
            lambda part: self._refine([rows[place] for place in part], [strengths[place] for place in part]),
            places,
            size=refiner.batch_size,
            device=refiner.device,
            pixels=height * width,
            known=refiner.memory,
        )
        for part, (images, times, fine) in parts:
            for place, image, time, whole in zip(part, images, times, fine, strict=True):
                finite[place] = whole
                if whole:
                    done[place], timesteps[place] = image, time
        return done, timesteps, finite

    def _refine(self, rows: list[int], strengths: list[float]) -> tuple[Tensor, list[int | None], list[bool]]:
        """Refine a batch; images whose numbers broke in half precision once more, alone and in single precision."""
        loaded = self.load()
        images, times, finite = self._denoised(loaded, rows, strengths)
        if loaded.components.dtype != torch.float32 and not all(finite):
            images = images.clone()
            whole = loaded.in_single_precision()
            for place in (place for place, fine in enumerate(finite) if not fine):
                again, _, (finite[place],) = self._denoised(whole, [rows[place]], [strengths[place]])
                images[place] = again[0]
        return images, times, finite

    def _denoised(
        self, loaded: Loaded, rows: list[int], strengths: list[float]
    ) -> tuple[Tensor, list[int | None], list[bool]]:
        refiner, components = self.refiner, loaded.components
        home = exact_device(components.device)  # of all but the model: sums of masks and strengths are exact
        mixed = _rows(self.images, rows, home)
        size = _working_size(mixed.shape[-2:], refiner.spec.resolution, components.multiple)
        latents = (size[0] // components.factor, size[1] // components.factor)
        masks = None if self.masks is None else _rows(self.masks, rows, home)
        change = shares = others = None
        if masks is not None:
            others = off_object(masks, latents)
            change = strength_map(masks, sent(torch.tensor(strengths), home), latents)
        if self.holes is not None:
            shares = hole_shares(_rows(self.holes, rows, home), masks, latents)
        found = denoise(
            components,
            _resized(to_float(mixed), size),
            [self.prompts[row] for row in rows],
            strengths=strengths,
            seeds=[self.seeds[row] for row in rows],
            steps=refiner.steps,
            guidance=refiner.guidance,
            texts=loaded.prompts,
            strength_map=change,
            holes=shares,
            hole_strength=refiner.hole_strength,
            unprompted=others,
        )
        images = _like(_resized(found.images.to(home), mixed.shape[-2:]), mixed)
        if masks is not None and self.preserve == "strict":
            images = composite(images, mixed, masks, band=refiner.band)
        return images.to(self.images.device), list(found.timesteps), list(found.finite)

    def _most(self, row: int, strength: float) -> float:
        """The largest strength anywhere in an image."""
        raised = self.refiner.hole_strength
        return strength if raised is None or not self.holed[row] else max(strength, raised)

    def _result(
        self, images: Tensor, strengths: list[float], timesteps: list[Any], accepted: list[bool], broken: list[bool]
    ) -> Refined:
        used = tuple(0.0 if time is None else strength for strength, time in zip(strengths, timesteps, strict=True))
        if any(broken):
            which = [place for place, bad in enumerate(broken) if bad]
            warnings.warn(
                f"the refiner gave NaN or infinite numbers for image(s) {which[:8]} of {len(images)}, which stay as "
                "they were mixed: are the weights undamaged, and made for this base?",
                RuntimeWarning,
                stacklevel=3,
            )
        facts = tuple(timesteps), self.prompts, self.seeds, tuple(accepted), self.preserve, tuple(broken)
        return Refined(images, used, *facts)


def _rows(tensor: Tensor, rows: list[int], device: torch.device) -> Tensor:
    """Some rows of a tensor, on the model's device: as few bytes as they are go there."""
    return sent(tensor[sent(torch.tensor(rows), tensor.device)], device)


def _working_size(size: Sequence[int], resolution: int, multiple: int) -> tuple[int, int]:
    """The shorter side at the refiner's resolution, both sides multiples of what the model can halve."""
    scale = resolution / min(size)
    height, width = (max(multiple, round(side * scale / multiple) * multiple) for side in size)
    return height, width


def _like(pixels: Tensor, like: Tensor) -> Tensor:
    return (pixels * 255).round().to(torch.uint8) if like.dtype == torch.uint8 else pixels.to(like.dtype)


def _resized(images: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    return F.interpolate(images, size=tuple(size), mode="bicubic", antialias=True).clamp(0, 1)
