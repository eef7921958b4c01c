"""``SGDMix`` for torchvision: a v2 transform over batches."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten
from torchvision import tv_tensors
from torchvision.transforms import v2

from sgdmix_albu.arguments import check_count, check_number, check_switch, said
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.bits import Joined, bit_sums
from sgdmix_albu.mixing.colour import check_finite, check_normalization, unnormalized
from sgdmix_albu.mixing.composition import compose
from sgdmix_albu.mixing.described import describe
from sgdmix_albu.mixing.labels import class_ids
from sgdmix_albu.mixing.masks import MaskPreset, get_mask
from sgdmix_albu.mixing.memory import Memory
from sgdmix_albu.mixing.mix import plan_batch
from sgdmix_albu.mixing.selection import keys_of
from sgdmix_albu.refusals import once_read, read_now, read_together
from sgdmix_albu.saliency.base import Saliency
from sgdmix_albu.saliency.given import given_maps
from sgdmix_albu.saliency.resolve import backend_unless_given
from sgdmix_albu.settings import MixSettings
from sgdmix_albu.tensors import PIXELS, check_generator, check_tensor
from sgdmix_albu.torchvision.erased import without_erased_of
from sgdmix_albu.torchvision.exactly import exactly
from sgdmix_albu.torchvision.mappings import closed, opened
from sgdmix_albu.torchvision.refining import open_refiner, refine_mixed
from sgdmix_albu.torchvision.roles import Name, Role, check_roles
from sgdmix_albu.torchvision.samples import (
    Getter,
    Mixed,
    check_getters,
    keys_in,
    labels_in,
    maps_in,
    no_labels,
    read_sample,
)
from sgdmix_albu.torchvision.streams import own_stream, rank_of_process
from sgdmix_albu.torchvision.tally import Tally
from sgdmix_albu.types import BEST_FILL, BEST_MASK, BEST_SALIENCY, Fill, Place, Preserve, TargetClass

if TYPE_CHECKING:
    from sgdmix_albu.refine.refiner import Refined, Refiner


class SGDMix(v2.Transform):  # type: ignore[misc]  # torchvision ships no types
    """Put each image of a batch on the background of its best-matching neighbour; labels stay the source's.

    SGD-Mix (arXiv 2505.11813, section 5): the target is the candidate with the nearest saliency map (L2). Source
    pixels are kept where the source is salient, or with ``fill="source"`` where either image is; the rest is the
    target's background. Use it on batches: after the loader or in its ``collate_fn``, also in workers.

    Args:
        saliency: A backend's name (see :func:`sgdmix_albu.saliency.list_backends`), a backend, a function
            ``(B, C, H, W) -> (B, H, W)``, a ``captum.attr.Attribution``, or "given" for maps or masks that
            come with the sample.
        model: The classifier that model-based saliency ("gradcam", ...) looks through. It is left
            unchanged, is not part of ``state_dict()``, and may be the model in training. For "text" a folder or a hub
            id.
        layer: Its layer, a module or dotted name, for backends that take one; None finds it.
        p: Probability of each image to be mixed, independently; the others come back bit-identical.
        candidates: N, the candidates drawn for each image (the paper: 30 to 50).
        mask: A mask preset's name (see :func:`sgdmix_albu.masks.list_masks`) or a callable.
        fill: What replaces the target's object. "inpaint" paints it over, with a small rim, with the colours around it
            (:func:`sgdmix_albu.mixing.inpaint`), then pastes the source by its own mask. "source" keeps the source's
            pixels there: the paper's union mask.
        place: Where the source's object goes. "source": where it was. "random": it is scaled to a size between
            its own and that of the target's object, and moved anywhere in the frame where it fits (the placement of
            ForAug, arXiv 2503.09399); masks, boxes and key points move along. With ``fill="inpaint"`` only.
        max_coverage: The largest fraction of an image that the union mask may cover. If it is exceeded, the
            next-nearest candidate is tried, then the image stays unmixed. With ``fill="inpaint"`` it limits the
            source's mask and the painted area, each.
        target_class: "any", or only targets of the "same" or a "different" class.
        exclude_duplicates: Never choose a target with exactly the source's pixels: the same image, drawn twice or
            remembered from an earlier epoch. Views of one image (random crops) have other pixels: see ``key_getter``.
        feather: Width in pixels of the fade outside the mask; 0 is the paper's hard edge. None: 0 with
            ``fill="source"``; with "inpaint" a soft border, one pixel to either side of the mask's edge.
        memory: Images of earlier batches to keep as further candidates, for small batches. Each
            process (worker) remembers its own. With random crops, set ``key_getter`` to recognise the source itself.
        refiner: Refine the mixed images by diffusion: a refiner's key, its folder, or the result of
            :func:`sgdmix_albu.refine.get_refiner`. Loaded when the first image is mixed; a pickle carries
            the settings only. The batch needs labels, and images in [0, 1] or uint8: put this before Normalize.
        strength: Its translation strength S in (0, 1]; a tuple to draw from, or "adaptive".
        preserve: How it protects the object: "none", the paper's plain image-to-image, "soft" or "strict".
        labels_getter: How to find the labels in the input, as in torchvision's ``CutMix``: "default", a
            callable on the input, or None for no labels. They are not changed, and only read if a backend or
            ``target_class`` needs them.
        saliency_getter: With ``saliency="given"``, a callable on the input that returns the maps, (B, H, W);
            None looks for a ``SaliencyMap`` or the key "saliency".
        key_getter: Which sample each image is: a key of the input, or a callable on the input, that gives B hashable
            keys (names, numbers) or an integer tensor (B,). Images with the source's own key are never its target:
            other views of it, or one that ``memory`` kept from the last epoch.
        roles: What a key, or a place of a tuple, holds, if neither type nor key says it: "image" (mixed,
            with the fade), "mask" (semantic masks, depth: mixed with hard edges), "instances" (each instance keeps what
            is still the source's; targets add none) or "keep" (returned unchanged). For example ``{1: "mask"}``.
        min_visibility: The least share of a box, in [0, 1], that must still be the source's; below it, and always when
            nothing is left, the box becomes empty, as outside a crop, and ``v2.SanitizeBoundingBoxes`` removes it with
            its label and mask. Key points on erased pixels move to (-1, -1), where
            ``v2.SanitizeKeyPoints`` finds them. None: all boxes and points stay.
        mean: With ``std``: the images were normalised by ``v2.Normalize(mean, std)``. None: they are uint8, or floats
            in [0, 1] or normalised with ImageNet's statistics, recognised batch by batch; any other range is an
            error. Only read if colours are needed: by training-free saliency and by masks that follow edges.
        std: See ``mean``.
        generator: Generator for the random draws; None for torch's own, which a loader seeds for each worker and epoch.
        **options: Options of the backend: ``session=`` of "rembg", ``prompt=`` of "text", ``microbatch=`` of any.

    Shapes:
        ``images`` (B, C, H, W), integers or floats, a tensor or ``tv_tensors.Image``, anywhere in a nested structure;
        any C that the saliency can read. ``tv_tensors.Mask`` (B, H, W) or (B, 1, H, W) is a semantic mask, mixed like
        the image; a target's object is painted over with the nearest value. A list with one entry for each image
        holds what detection models take: in it, Masks (n, H, W) are instances, (H, W) semantic; boxes and key points
        belong to their image. At the top, boxes (B, 4) and points (B, ..., 2) are one entry for each image. Labels and
        everything else come back unchanged.
        Another plain tensor of the images' size is refused until ``roles``, its key or its type says what it is.

    Attributes:
        guard_counts: How many images each guard has rejected so far in this process; keys as in
            :class:`sgdmix_albu.types.Guards`.
        refined: What the refiner did to the mixed images of the last batch; see
            :class:`sgdmix_albu.refine.Refined`.

    Raises:
        InvalidInputError: (a ``ValueError``) PIL images, wrong dimensions, sizes that differ, tensors of unknown
            role, unknown ranges, invalid labels where labels are needed.
        InvalidTypeError: (a ``TypeError``) No image in the input.

    Example:
        >>> import torch
        >>> from sgdmix_albu import SGDMix
        >>> images, labels = torch.rand(8, 3, 64, 64), torch.arange(8)
        >>> mixed, same = SGDMix("spectral_residual")(images, labels)
        >>> mixed.shape, same is labels
        (torch.Size([8, 3, 64, 64]), True)
    """

    # Where users import it from, and where pickle finds it.
    __module__ = "sgdmix_albu.torchvision"

    def __init__(
        self,
        saliency: Saliency = BEST_SALIENCY,
        *,
        model: torch.nn.Module | str | os.PathLike[str] | None = None,
        layer: torch.nn.Module | str | None = None,
        p: float = 1.0,
        candidates: int = 50,
        mask: str | MaskPreset = BEST_MASK,
        fill: Fill = BEST_FILL,
        place: Place = "source",
        max_coverage: float = 0.95,
        target_class: TargetClass = "any",
        exclude_duplicates: bool = True,
        feather: float | None = None,
        memory: int = 0,
        refiner: str | os.PathLike[str] | Refiner | None = None,
        strength: float | tuple[float, ...] | str = 0.7,
        preserve: Preserve = "strict",
        labels_getter: Getter | Literal["default"] | None = "default",
        saliency_getter: Getter | None = None,
        key_getter: Getter | str | None = None,
        roles: Mapping[Name, Role] | None = None,
        min_visibility: float | None = 0.0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.p, self.candidates, self.max_coverage, self.feather = p, candidates, max_coverage, feather
        self.target_class, self.fill, self.place = target_class, fill, place
        MixSettings.of(self)
        check_switch(exclude_duplicates=exclude_duplicates)
        check_count("memory", memory, "must be a number of images, 0 or more", least=0, most=2**31 - 1)
        if min_visibility is not None:
            check_number("min_visibility", min_visibility, "must be a share in [0, 1] or None", low=0, high=1)
        check_normalization(mean, std)
        check_generator(generator)
        check_getters(labels_getter, saliency_getter, key_getter)
        if saliency_getter is not None and not (isinstance(saliency, str) and saliency == "given"):
            raise InvalidInputError(f"saliency_getter goes with saliency='given', got saliency={said(saliency)}")
        self._backend = backend_unless_given(saliency, model=model, layer=layer, options=options, owner=type(self))
        self._refiner = open_refiner(refiner, strength, preserve)
        self._preset = get_mask(mask)
        self._memory = Memory(int(memory))
        self.saliency, self.mask, self.memory, self.exclude_duplicates = saliency, mask, memory, exclude_duplicates
        self.refiner, self.strength, self.preserve = refiner, strength, preserve
        self.refined: Refined | None = None
        self.labels_getter, self.saliency_getter, self.key_getter = labels_getter, saliency_getter, key_getter
        self.roles, self.min_visibility = check_roles(roles), min_visibility
        self.mean, self.std = mean, std
        self._parent_rank: int | None = None
        self.generator = generator
        self._tally = Tally()

    def __setattr__(self, name: str, value: Any) -> None:
        # A model that saliency looks through is somebody else's: not in state_dict(), parameters(), to() or DDP.
        if isinstance(value, nn.Module):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    # Targets depend on the data: one graph break here instead of twenty inside.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, *inputs: Any) -> Any:
        """Mix the batch found in ``inputs``, which come back in the same structure."""
        with read_together():
            return exactly(self._mixed, inputs)

    def _mixed(self, inputs: tuple[Any, ...]) -> Any:
        sample = inputs[0] if len(inputs) == 1 else inputs
        plain = opened(sample)
        flat, spec = tree_flatten(plain)
        labels, keys = labels_in(sample, self.labels_getter), keys_in(sample, self.key_getter)
        maps = maps_in(sample, flat, self.saliency_getter) if self._backend is None else None
        aside = [leaf for leaf in (labels, maps, keys) if leaf is not None]
        mixed, erasable = read_sample(plain, roles=self.roles, aside=aside)
        batches = [part.batch.as_subclass(tv_tensors.Mask) if part.hard else part.batch for part in mixed]
        params = self.make_params(batches, labels=labels, maps=maps, ids=keys)
        for part, batch in zip(mixed, batches, strict=True):
            _put_back(flat, part, self.transform(batch, params).as_subclass(Tensor))
        for objects in erasable:
            found = flat[objects.place]
            flat[objects.place] = without_erased_of(params["plan"], found, objects.row, self.min_visibility)
        return closed(sample, tree_unflatten(flat, spec))

    def __getattr__(self, name: str) -> Any:
        """As torch's; ``A.Compose`` asks for ``available_keys``, and is told that this is not its own."""
        if name == "available_keys":
            raise AttributeError(
                "this SGDMix is the one for torchvision; inside A.Compose use sgdmix_albu.albumentations.SGDMix"
            )
        return super().__getattr__(name)

    def make_params(
        self,
        flat_inputs: list[Any],
        *,
        labels: Any = None,
        maps: Tensor | None = None,
        ids: Sequence[Hashable] | Tensor | None = None,
    ) -> dict[str, Any]:
        """Decide everything: saliency, masks, targets. ``transform`` with the result repeats the mix exactly.

        Args:
            flat_inputs: The tensors to be mixed, each (B, ...), the image that saliency looks at first.
            labels: One class for each image, for model-based saliency, class constraints and a refiner; as
                :func:`sgdmix_albu.mixing.labels.class_ids` reads them.
            maps: Given saliency maps, for ``saliency="given"``.
            ids: Which sample each image is, B hashable keys or an integer tensor.

        Returns:
            ``plan``, a :class:`sgdmix_albu.types.MixPlan`; ``draws``, the randomness in it; ``leaves``, and for each of
            them in ``remembered`` the rows of a memory that became targets: the plan's targets from B on; ``refine``,
            labels and seeds for a refiner.
        """
        for batch in flat_inputs:
            check_tensor(batch, "images and masks (B, ..., H, W)", (-1, None, None), PIXELS, more=True)
        images = flat_inputs[0].as_subclass(Tensor)
        count = len(images)
        classes = self._classes(labels, count)
        # As they were before Normalize: what colours are read from.
        coloured = (
            images if self.mean is None or self.std is None else unnormalized(images, mean=self.mean, std=self.std)
        )
        found = self._maps(images, coloured, classes, maps)
        for other in flat_inputs[1:]:
            if not isinstance(other, tv_tensors.Mask):  # depth has NaN where nothing was measured
                check_finite(other)
        described = describe(found, coloured, self._preset, None if self.target_class == "any" else classes)
        described = replace(described, sums=bit_sums(images))
        keys = None if ids is None else keys_of(ids)
        recalled = self._memory.recall(flat_inputs, described)
        stream = own_stream(self.generator, self._rank() or 0)
        plan, draws = plan_batch(
            images,
            described,
            MixSettings.of(self),
            ids=keys,
            by_pixels=self.exclude_duplicates,
            recalled=recalled,
            generator=stream,
        )
        plan, remembered = (plan, []) if recalled is None else recalled.taken(plan)
        # A batch that is refused is neither remembered nor counted.
        once_read(lambda: self._memory.store(flat_inputs, described, keys))
        once_read(lambda: self._tally.add(plan.guards))
        refine = None
        if self._refiner is not None and classes is not None:
            seeds = torch.randint(2**62, (count,), generator=stream, device="cpu")
            refine = {"labels": classes.cpu(), "seeds": seeds}
        return {"plan": plan, "draws": draws, "leaves": (*flat_inputs,), "remembered": remembered, "refine": refine}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Composite one tensor of the sample by the plan in ``params``."""
        plan = params["plan"]
        batch = inpt.as_subclass(Tensor)
        pool: Any = batch
        if params["remembered"]:
            place = next((i for i, leaf in enumerate(params["leaves"]) if leaf is inpt), None)
            if place is None:
                raise InvalidInputError("a mix that used a memory can only be replayed on the same tensors")
            pool = Joined(batch, params["remembered"][place])
        hard = isinstance(inpt, tv_tensors.Mask)  # class indices cannot fade into each other
        mixed = compose(plan, batch, pool, feather=self.feather, hard=hard)
        if self._refiner is not None and not hard:
            read_now()  # before seconds are spent on a batch that is refused
            mixed, self.refined = refine_mixed(
                self._refiner, mixed, plan, **params["refine"], strength=self.strength, preserve=self.preserve
            )
        return tv_tensors.wrap(mixed, like=inpt) if isinstance(inpt, tv_tensors.TVTensor) else mixed

    def __getstate__(self) -> dict[str, Any]:
        # As plain bytes: a spawned worker dies of a pickled torch.Generator, whose state comes as a shared tensor.
        state = self.__dict__.copy()
        # A spawned worker cannot ask for its parent's rank.
        state["_parent_rank"] = self._rank()
        if self.generator is not None:
            state["generator"] = (str(self.generator.device), bytes(self.generator.get_state().tolist()))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if state["generator"] is not None:
            device, content = state["generator"]
            self.generator = torch.Generator(device)
            self.generator.set_state(torch.tensor(list(content), dtype=torch.uint8, device="cpu"))

    @property
    def guard_counts(self) -> Counter[str]:
        """How many images each guard has rejected so far in this process; ``guard_counts.clear()`` resets them."""
        return self._tally.counts()

    def _rank(self) -> int | None:
        return rank_of_process(self._parent_rank)

    def _maps(self, images: Tensor, coloured: Tensor, classes: Tensor | None, maps: Tensor | None) -> Tensor:
        if self._backend is None:
            if maps is None:
                raise InvalidInputError(
                    "saliency='given' found no maps: put a SaliencyMap or the key 'saliency' into the sample (a loader "
                    "with pin_memory=True drops the type), or pass saliency_getter"
                )
            return given_maps(maps, images.shape).to(images.device)
        return self._backend.coarse(coloured if self._backend.wants_rgb else images, classes)

    def _classes(self, labels: Any, count: int) -> Tensor | None:
        """The class of each image, read only where one is needed."""
        needed = self.target_class != "any" or self._refiner is not None
        if labels is None and needed:
            raise no_labels("a refiner" if self._refiner is not None else f"target_class={self.target_class!r}")
        if labels is not None and (needed or (self._backend is not None and self._backend.uses_labels)):
            return class_ids(labels, count)
        if isinstance(labels, Tensor) and labels.ndim == 1 and len(labels) != count:
            raise InvalidInputError(
                f"Expected labels of shape (batch_size,) or (batch_size, num_classes) with batch_size {count}, "
                f"but got {tuple(labels.shape)}."
            )
        return None


def _put_back(flat: list[Any], part: Mixed, mixed: Tensor) -> None:
    parts = list(mixed) if part.stacked else [mixed]
    for place, batch in zip(part.places, parts, strict=True):
        # Other libraries have types of their own: fastai shows a TensorImage, and no Tensor.
        kind = type(flat[place])
        flat[place] = batch.as_subclass(kind) if part.like is None else tv_tensors.wrap(batch, like=part.like)
