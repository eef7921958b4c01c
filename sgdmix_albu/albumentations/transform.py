"""The transform: Albumentations' protocol around the pure functions of :mod:`sgdmix_albu.mixing`."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from sgdmix_albu.albumentations.arrays import Array, Moves, moves_of
from sgdmix_albu.albumentations.describing import Describer
from sgdmix_albu.albumentations.fork import ForkHooks, albumentations
from sgdmix_albu.albumentations.planning import plan_call
from sgdmix_albu.albumentations.pool import check_keys, names_of_masks, read_pool
from sgdmix_albu.albumentations.targets import backgrounds_of, mixed_target, nothing_to_mix, seen_boxes, seen_points
from sgdmix_albu.arguments import check_switch
from sgdmix_albu.errors import InvalidInputError, InvalidTypeError
from sgdmix_albu.mixing.blending import edge_width
from sgdmix_albu.mixing.colour import check_normalization
from sgdmix_albu.mixing.masks import MaskPreset, get_mask
from sgdmix_albu.saliency.base import Saliency
from sgdmix_albu.saliency.resolve import backend_unless_given
from sgdmix_albu.settings import MixSettings
from sgdmix_albu.types import BEST_FILL, BEST_MASK, BEST_SALIENCY, Fill, Place, TargetClass

_TARGETS = ("image", "images", "mask", "masks", "bboxes", "keypoints")


class SGDMix(ForkHooks, albumentations.DualTransform):  # type: ignore[misc]
    """Put an image on the background of its best-matching donor; labels and annotations stay the source's.

    SGD-Mix (arXiv 2505.11813, section 5): the target is the donor with the nearest saliency map (L2). Source
    pixels are kept where the source is salient, or with ``fill="source"`` where either image is; the rest is the
    target's background.

    Pass the donors of ``image`` under ``metadata_key``, in the form that ``A.Mosaic`` uses. In an ``images`` batch, the
    donors of each image are the other images, and those of the metadata if there are any.

    Args:
        saliency: A backend's name (see :func:`sgdmix_albu.saliency.list_backends`), a backend, a function
            ``(B, C, H, W) -> (B, H, W)``, a ``captum.attr.Attribution``, or "given" for maps that come with
            the sample, under ``saliency_key``.
        model: The classifier that model-based saliency ("gradcam", ...) looks through. For "text" a folder or a hub id.
        layer: Its layer, a module or dotted name, for backends that take one; None finds it.
        candidates: N, the most donors to use in a call, drawn at random before anything is computed
            (the paper: 30 to 50).
        mask: A mask preset's name (see :func:`sgdmix_albu.masks.list_masks`) or a callable.
        fill: What replaces the donor's object. "inpaint" paints it over, with a small rim, with the colours around it
            (:func:`sgdmix_albu.mixing.inpaint`; in masks with the nearest value), then pastes the source by its own
            mask. "source" keeps the source's pixels there: the paper's union mask.
        place: Where the source's object goes. "source": where it was. "random": it is scaled to a size between
            its own and that of the donor's object, and moved anywhere in the frame where it fits (the placement of
            ForAug, arXiv 2503.09399); masks, boxes and key points move along. With ``fill="inpaint"`` only.
        max_coverage: The largest fraction of an image that the union mask may cover. If it is exceeded, the
            next-nearest donor is tried, then the image stays unmixed. With ``fill="inpaint"`` it limits the source's
            mask and the painted area, each.
        target_class: "any", or only donors of the "same" or a "different" class.
        feather: Width in pixels of the fade outside the mask; 0 is the paper's hard edge. None: 0 with
            ``fill="source"``; with "inpaint" a soft border, one pixel to either side of the mask's edge. Masks
            always have hard edges.
        exclude_duplicates: Never choose a donor with exactly the source's pixels, nor one that was stretched
            and then looks like it: the same photograph, resized in two ways. Crops and flips hide a photograph
            from this; set ``id_key`` to find it anyway.
        mean: What ``A.Normalize`` subtracted, if it comes before this transform (and donors are normalised too).
            None: recognised from the range of the call's float images, or an error.
        std: What ``A.Normalize`` divided by; given together with ``mean``.
        metadata_key: The key of the donors: a list of dicts with "image" and, if the source has
            them, "mask" and the names of additional targets, as arrays or tensors. Donors of another size are
            stretched to the source's (masks by nearest pixel). An empty list leaves the image unmixed.
        saliency_key: The key of maps that come with the sample: an additional target of kind "mask" (with
            ``images``: "masks"), and a key of the donors. Bool, uint8 where 255 is 1, or float in [0, 1]. With
            "mask" the mask itself is the map. A map replaces the backend for that image.
        label_key: The key of the class, in the call and in each donor (with ``images``: one for each image).
            Not changed, and only read for ``target_class`` and for backends that explain the image's own class. Class
            numbers or probabilities as in :func:`sgdmix_albu.mixing.labels.class_ids`; for ``target_class`` alone also
            names. None: never.
        id_key: The key that says which sample an image is, in the call and in each donor (with ``images``: one for each
            image): anything hashable. A donor of the source's own sample is never chosen, whatever its pixels. Read
            only if the source has it. None: never.
        instance_keys: Names of the mask targets that hold the source's instances. Each keeps its pixels where the
            source is kept and becomes 0 elsewhere; donors need no such masks, and add none. All other masks are
            semantic and mixed like the image. None: ``masks`` with one ``image``, additional targets of
            kind "masks" too, and what ``instance_binding`` of albumentationsx binds.
        remember: How many donors' saliency and masks to remember for later calls; donors are recognised by their
            pixels. None: as many as there are candidates, at least 512; but 0 if saliency looks through your network or
            at labels, since a model in training sees the same pixels differently in the next step. With a number,
            nothing outdated is used there either: each call checks the weights' digest. A function must return the same
            map for the same image; otherwise say 0. Each process remembers its own.
        p: Probability that a call is mixed: all images of an ``images`` batch or none, as everywhere in
            Albumentations.
        **options: Options of the backend: ``session=`` of "rembg", ``prompt=`` of "text", ``microbatch=`` of any.

    Targets:
        image, images, mask, masks, bboxes, keypoints. ``mask`` is semantic and mixed like the image;
        ``masks`` are instances with ``image``, and one semantic mask for each of ``images``. Boxes are dropped
        if nothing is left of them, or less than the pipeline's ``A.BboxParams`` ask for (``min_visibility``,
        ``min_area``); key points if they were erased and ``A.KeypointParams`` has ``remove_invisible``. What stays is
        moved by ``place="random"`` only. Boxes that ``images`` share stay while one of them shows enough, and are
        refused where they would move. A separate target for saliency comes back unchanged.

    Image types:
        uint8, uint16 or float, grey or RGB, (H, W) or (H, W, C). If saliency needs no colours (a function, a model,
        "given", "spectral_residual"): any dtype, any C.

    Attributes:
        guard_counts: How many images each guard has rejected so far in this process; keys as in
            :class:`sgdmix_albu.types.Guards`.

    Raises:
        InvalidInputError: (a ``ValueError``) Invalid settings, images or donors; it says what was expected
            and what it got.

    Example:
        >>> import numpy as np
        >>> import albumentations as A
        >>> from sgdmix_albu.albumentations import SGDMix
        >>> rng = np.random.default_rng(0)
        >>> image, *others = rng.integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
        >>> pipeline = A.Compose([A.HorizontalFlip(), SGDMix("spectral_residual", p=1)], strict=True, seed=0)
        >>> mixed = pipeline(image=image, label=7, sgdmix_metadata=[{"image": other} for other in others])
        >>> mixed["image"].shape, mixed["label"]
        ((64, 64, 3), 7)
    """

    # The name under which A.to_dict stores the class and pickle finds it: where users import it from.
    __module__ = "sgdmix_albu.albumentations"

    _targets = tuple(
        target for target in albumentations.core.type_definitions.Targets if target.name.lower() in _TARGETS
    )

    def __init__(
        self,
        saliency: Saliency = BEST_SALIENCY,
        *,
        model: torch.nn.Module | str | os.PathLike[str] | None = None,
        layer: torch.nn.Module | str | None = None,
        candidates: int = 50,
        mask: str | MaskPreset = BEST_MASK,
        fill: Fill = BEST_FILL,
        place: Place = "source",
        max_coverage: float = 0.95,
        target_class: TargetClass = "any",
        feather: float | None = None,
        exclude_duplicates: bool = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        metadata_key: str = "sgdmix_metadata",
        saliency_key: str = "saliency",
        label_key: str | None = "label",
        id_key: str | None = "id",
        instance_keys: Sequence[str] | None = None,
        remember: int | None = None,
        p: float = 0.5,
        **options: Any,
    ) -> None:
        self.p, self.candidates, self.max_coverage, self.feather = p, candidates, max_coverage, feather
        self.target_class, self.fill, self.place = target_class, fill, place
        MixSettings.of(self)
        super().__init__(p=p)
        check_keys(metadata_key=metadata_key, saliency_key=saliency_key, label_key=label_key, id_key=id_key)
        check_switch(exclude_duplicates=exclude_duplicates)
        check_normalization(mean, std)
        backend = backend_unless_given(saliency, model=model, layer=layer, options=options, owner=type(self))
        preset = get_mask(mask)
        # What goes by name alone holds no network that the user could train.
        watched: list[Any] = [] if isinstance(saliency, str) and not isinstance(model, torch.nn.Module) else [backend]
        watched += [] if isinstance(mask, str) else [preset]
        self._describer = Describer(
            backend,
            preset,
            saliency_key=saliency_key,
            normalization=None if mean is None or std is None else (mean, std),
            remember=remember,
            candidates=candidates,
            watched=watched,
        )
        self.saliency, self.model, self.layer, self.mask, self.options = saliency, model, layer, mask, options
        self.mean, self.std, self.exclude_duplicates = mean, std, exclude_duplicates
        self.metadata_key, self.saliency_key, self.label_key = metadata_key, saliency_key, label_key
        self.id_key, self.instance_keys, self.remember = id_key, names_of_masks(instance_keys), remember
        self.guard_counts: Counter[str] = Counter()

    def __call__(self, *batch: Any, **sample: Any) -> Any:
        """As Albumentations', which takes named arguments only."""
        if batch:
            raise InvalidTypeError(
                "this SGDMix is the one for Albumentations, which takes image=...; for batches of tensors use "
                "sgdmix_albu.SGDMix"
            )
        return super().__call__(**sample)

    _supported_bbox_types = frozenset({"hbb", "obb"})  # albumentationsx asks

    @property
    def targets(self) -> dict[str, Any]:
        """The targets that are handled; volumes are not."""
        return {name: handler for name, handler in super().targets.items() if name in _TARGETS}

    @property
    def available_keys(self) -> set[str]:
        """What ``A.Compose(strict=True)`` lets through: the targets, the donors and the label."""
        own = (self.metadata_key, self.label_key, self.id_key)
        return {*super().available_keys, *(key for key in own if key is not None)}

    def add_targets(self, additional_targets: dict[str, str]) -> None:
        """Additional targets, each composited with the picture under its own name in the donor."""
        super().add_targets(additional_targets)
        for name, kind in additional_targets.items():
            if kind in ("image", "images", "mask", "masks"):
                self._key2func[name] = self._keep if name == self.saliency_key else partial(self._mix, name, kind)

    def decide(self, data: dict[str, Any], py_random: random.Random) -> dict[str, Any]:
        """Decide everything about one call.

        Returns:
            All that is needed to repeat the mix (``A.ReplayCompose`` stores it), in numpy and plain types:
            ``union`` (B, H, W) bool, True where the source is kept; ``moves``, the sources' objects and where they go,
            or None where they stay; ``backgrounds``, for each image the pictures of its donor, painted over where
            ``fill`` says so, or None; and what was done: ``seed``, ``target`` (row of the pool: images first, donors
            after them; an unmixed image's own row), ``distance``, ``kept`` and ``guards``.
        """
        instances = ("mask",) if self.instance_keys is None and self.bound_mask(data) else self.instance_keys
        framed = self.framed_masks()
        pool = read_pool(data, self._additional_targets, self.metadata_key, self.saliency_key, instances, framed)
        batch, seed = len(pool.sources), py_random.getrandbits(62)
        if not batch:
            return nothing_to_mix(data["images"])
        stream = torch.Generator().manual_seed(seed)
        plan = plan_call(
            data,
            pool,
            self._describer,
            MixSettings.of(self),
            stream,
            exclude_duplicates=self.exclude_duplicates,
            metadata_key=self.metadata_key,
            label_key=self.label_key,
            id_key=self.id_key,
        )
        self.guard_counts.update(plan.guards.counts())
        targets = plan.target.tolist()
        chosen = [place if mixed else None for place, mixed in zip(targets, plan.applied.tolist(), strict=True)]
        return {
            "union": plan.masks.numpy(),
            "backgrounds": backgrounds_of(pool, chosen, None if plan.holes is None else plan.holes.numpy()),
            "moves": moves_of(plan),
            "instances": pool.instances,
            "batched": pool.batched,
            "seed": seed,
            "target": targets,
            "distance": plan.distance.tolist(),
            "kept": plan.kept.tolist(),
            "guards": plan.guards.counts(),
        }

    def apply(self, img: Array, *args: Any, **params: Any) -> Any:
        """Mix the image."""
        return self._mix("image", "image", img, **params)

    def apply_to_images(self, images: Array, *args: Any, **params: Any) -> Any:
        """Mix each image of a batch."""
        return self._mix("images", "images", images, **params)

    def apply_to_mask(self, mask: Array, *args: Any, **params: Any) -> Any:
        """Composite the mask as the image."""
        return self._mix("mask", "mask", mask, **params)

    def apply_to_masks(self, masks: Array, *args: Any, **params: Any) -> Any:
        """Composite the masks: all as the image, or each as its image of the batch."""
        return self._mix("masks", "masks", masks, **params)

    def apply_to_bboxes(
        self,
        bboxes: Array,
        *args: Any,
        union: Array,
        moves: Moves | None = None,
        frame_id_column: int | None = None,
        **params: Any,
    ) -> Array:
        """Boxes stay the source's, where enough of them is left for the pipeline's ``A.BboxParams``."""
        processor = self.get_processor("bboxes")
        return bboxes if processor is None else seen_boxes(bboxes, union, processor.params, frame_id_column, moves)

    def apply_to_keypoints(
        self,
        keypoints: Array,
        *args: Any,
        union: Array,
        moves: Moves | None = None,
        frame_id_column: int | None = None,
        **params: Any,
    ) -> Array:
        """Key points stay the source's; erased ones go where ``A.KeypointParams`` has ``remove_invisible``."""
        processor = self.get_processor("keypoints")
        return (
            keypoints if processor is None else seen_points(keypoints, union, processor.params, frame_id_column, moves)
        )

    def to_dict_private(self) -> dict[str, Any]:
        """The settings, for ``A.to_dict``; refused where they hold objects."""
        named = {name: getattr(self, name) for name in ("saliency", "model", "layer", "mask")}
        others = {name: value for name, value in self.options.items() if not isinstance(value, int | float)}
        for name, value in {**named, **others}.items():
            if value is not None and not isinstance(value, str):
                raise InvalidInputError(
                    f"SGDMix can be serialized if saliency, layer and mask are names and there is no model, "
                    f"got {name} of {type(value).__name__}; register it under a name "
                    f"(register_backend, register_mask) to store it"
                )
        state: dict[str, Any] = super().to_dict_private()
        return state

    def get_transform_init_args(self) -> dict[str, Any]:
        """The settings, the backend's own too, which Albumentations does not know."""
        return {**super().get_transform_init_args(), **self.options}

    def get_dict_with_id(self) -> dict[str, Any]:
        """The settings as they are, objects too: ``A.ReplayCompose`` keeps them in memory."""
        return {**super().to_dict_private(), "id": id(self)}

    def _mix(self, name: str, kind: str, value: Any, **params: Any) -> Any:
        return mixed_target(name, kind, value, feather=edge_width(self.fill, self.feather), **params)

    @staticmethod
    def _keep(value: Any, *args: Any, **params: Any) -> Any:
        return value
