"""The transform: Albumentations' protocol around the pure functions of :mod:`sgdmix_albu.mixing`."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sgdmix_albu.albumentations.annotations import seen_boxes, seen_points
from sgdmix_albu.albumentations.arrays import Array, composite, cut, to_tensor
from sgdmix_albu.albumentations.describing import Describer
from sgdmix_albu.albumentations.fork import ForkHooks, albumentations
from sgdmix_albu.albumentations.pool import Pool, read_ids, read_labels, read_pool, row_key
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.masks import MaskPreset, get_mask
from sgdmix_albu.mixing import changed_only, check_settings, draw, plan_mix, same_ids
from sgdmix_albu.saliency import get_backend
from sgdmix_albu.saliency.base import FunctionBackend
from sgdmix_albu.types import BEST_MASK, BEST_SALIENCY, Draws, MixPlan, TargetClass

if TYPE_CHECKING:
    from sgdmix_albu.saliency.base import SaliencyBackend

__all__ = ["SGDMix"]

_TARGETS = ("image", "images", "mask", "masks", "bboxes", "keypoints")


class SGDMix(ForkHooks, albumentations.DualTransform):  # type: ignore[misc]
    """Put an image on the background of its best-matching donor; labels, boxes and key points stay the source's.

    SGD-Mix (arXiv 2505.11813, section 5): the target is the donor whose saliency map is nearest (L2); source
    pixels are kept wherever either image is salient; the target's background is taken elsewhere.

    Donors of ``image`` come through ``metadata_key``, in the form that ``A.Mosaic`` uses. Donors of each image
    of an ``images`` batch are the other images, and those of the metadata if there are any.

    Args:
        saliency: A backend's name (see :func:`sgdmix_albu.saliency.list_backends`), a backend, a function
            ``(B, C, H, W) -> (B, H, W)``, a ``captum.attr.Attribution``, or "given" for maps that travel with
            the sample, under ``saliency_key``.
        model: The classifier that model-based saliency ("gradcam", ...) looks through.
        layer: Its layer, a module or dotted name, where the backend takes one; None finds it.
        candidates: N, the most donors that are looked at in a call, drawn at random before anything is
            computed about them (the paper: 30 to 50). The saliency of each is computed anew in every call,
            unless the donor brings a map under ``saliency_key``.
        mask: A mask preset's name (see :func:`sgdmix_albu.masks.list_masks`) or a callable.
        max_coverage: The largest fraction of an image that a union mask may cover; beyond it the next-nearest
            donor is tried, then the image stays unmixed.
        target_class: "any", or only donors of the "same" or a "different" class.
        feather: Width in pixels of the fade outside the mask; 0 is the paper's hard edge. Masks are always
            composited hard.
        exclude_duplicates: Never choose a donor with exactly the source's pixels.
        metadata_key: Where the donors are: a list of dicts with the key "image" and, where the source has
            them, "mask", "masks" and the names of additional targets. Donors of another size are
            stretched to the source's (masks by nearest pixel). An empty list leaves the image unmixed.
        saliency_key: Where maps are that travel with the sample: an additional target of kind "mask" (with
            ``images``: "masks"), and a key of the donors. Bool, uint8 where 255 is 1, or float in [0, 1]. With
            "mask" the mask itself is the map. Where there is a map, the backend is not asked.
        label_key: Where the class of the source and of each donor is (with ``images``: one for each image).
            Read only, and only for ``target_class`` and for backends that look through a model. None: never.
        p: Probability that a call is mixed: all images of an ``images`` batch or none, as everywhere in
            Albumentations.

    Targets:
        image, images, mask, masks, bboxes, keypoints. Masks are composited with the image's own union mask;
        with ``images``, ``masks`` holds one for each image. A target of its own for saliency comes back
        unchanged.

    Image types:
        uint8, float32; (H, W), (H, W, 1) or (H, W, 3).

    Attributes:
        guard_counts: How many images each guard has touched so far in this process; keys as in
            :class:`sgdmix_albu.types.Guards`.

    Raises:
        InvalidInputError: (a ``ValueError``) settings, images or donors do not fit; with what was expected
            and what came.

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
        saliency: Any = BEST_SALIENCY,
        *,
        model: torch.nn.Module | None = None,
        layer: torch.nn.Module | str | None = None,
        candidates: int = 50,
        mask: str | MaskPreset = BEST_MASK,
        max_coverage: float = 0.95,
        target_class: TargetClass = "any",
        feather: float = 0,
        exclude_duplicates: bool = True,
        metadata_key: str = "sgdmix_metadata",
        saliency_key: str = "saliency",
        label_key: str | None = "label",
        id_key: str | None = "id",
        instance_keys: Sequence[str] | None = None,
        remember: int | None = None,
        p: float = 0.5,
    ) -> None:
        check_settings(
            p=p, candidates=candidates, max_coverage=max_coverage, target_class=target_class, feather=feather
        )
        super().__init__(p=p)
        given = isinstance(saliency, str) and saliency == "given"
        options = {name: value for name, value in (("model", model), ("layer", layer)) if value is not None}
        if given and options:
            raise InvalidInputError(f"saliency='given' takes no {' and no '.join(options)}")
        backend: SaliencyBackend | None = None if given else get_backend(saliency, **options)
        self._describer = Describer(
            backend, get_mask(mask), saliency_key=saliency_key, remember=_remembered(remember, saliency, model, mask)
        )
        self.saliency, self.model, self.layer, self.mask = saliency, model, layer, mask
        self.candidates, self.max_coverage, self.feather = candidates, max_coverage, feather
        self.target_class, self.exclude_duplicates = target_class, exclude_duplicates
        self.metadata_key, self.saliency_key, self.label_key = metadata_key, saliency_key, label_key
        self.id_key, self.instance_keys, self.remember = id_key, _names(instance_keys), remember
        self.guard_counts: Counter[str] = Counter()

    _supported_bbox_types = frozenset({"hbb", "obb"})  # albumentationsx asks

    @property
    def targets(self) -> dict[str, Any]:
        """The targets that are handled; volumes are not."""
        return {name: handler for name, handler in super().targets.items() if name in _TARGETS}

    @property
    def available_keys(self) -> set[str]:
        """What ``A.Compose(strict=True)`` lets through: the targets, the donors and the label."""
        own = {self.metadata_key, self.label_key, self.id_key} - {None}
        return set(super().available_keys) | own

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
            ``union`` (B, H, W) bool, True where the source is kept; ``backgrounds``, for each image the
            pictures of its donor or None; and what was done: ``seed``, ``target`` (row of the pool: images
            first, donors after them; an unmixed image's own row), ``distance``, ``kept`` and ``guards``.
        """
        keys = self.instance_keys
        if keys is None and self.bound_mask(data):
            keys = ["mask"]
        pool = read_pool(data, self._additional_targets, self.metadata_key, self.saliency_key, keys)
        batch, seed = len(pool.sources), py_random.getrandbits(62)
        if not batch:
            return _nothing(data["images"])
        stream = torch.Generator().manual_seed(seed)
        draws = draw(batch, len(pool), candidates=self.candidates, generator=stream)
        # Only sources and donors that were drawn as candidates of at least one source are looked at.
        places = sorted({*range(batch), *draws.candidates.any(0).nonzero()[:, 0].tolist()})
        plan = self._plan(data, pool, places, Draws(draws.applied, draws.candidates[:, places]))
        self.guard_counts.update(plan.guards.counts())
        chosen = plan.target.tolist()
        rows = [pool.row(places[row]) if mixed else None for row, mixed in zip(chosen, plan.applied.tolist(), strict=True)]
        return {
            "union": plan.masks.numpy(),
            "backgrounds": [None if row is None else {key: row[key] for key in pool.kinds} for row in rows],
            "instances": pool.instances,
            "batched": pool.batched,
            "seed": seed,
            "target": [places[row] for row in chosen],
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

    def apply_to_bboxes(self, bboxes: Array, *args: Any, union: Array, **params: Any) -> Array:
        """Boxes stay the source's, where enough of them is left for the pipeline's ``A.BboxParams``."""
        processor = self.get_processor("bboxes")
        return bboxes if processor is None else seen_boxes(bboxes, union, processor.params)

    def apply_to_keypoints(self, keypoints: Array, *args: Any, union: Array, **params: Any) -> Array:
        """Key points stay the source's; erased ones go where ``A.KeypointParams`` has ``remove_invisible``."""
        processor = self.get_processor("keypoints")
        return keypoints if processor is None else seen_points(keypoints, union, processor.params)

    def to_dict_private(self) -> dict[str, Any]:
        """The settings, for ``A.to_dict``; refused where they hold objects."""
        for name in ("saliency", "model", "layer", "mask"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise InvalidInputError(
                    f"SGDMix can be serialized if saliency, layer and mask are names and there is no model, "
                    f"got {name} of {type(value).__name__}; register it under a name "
                    f"(register_backend, register_mask) to store it"
                )
        state: dict[str, Any] = super().to_dict_private()
        return state

    def get_dict_with_id(self) -> dict[str, Any]:
        """The settings as they are, objects too: ``A.ReplayCompose`` keeps them in memory."""
        return {**super().to_dict_private(), "id": id(self)}

    def _plan(self, data: dict[str, Any], pool: Pool, places: list[int], draws: Draws) -> MixPlan:
        """Stages 1 to 3 and the choice of targets among the rows at ``places``."""
        labels = self._labels(data, pool, places)
        described, pixels = self._describer.describe(pool, places, labels)
        if self.target_class != "any":
            described = replace(described, labels=labels)
        repeats = same_ids(pixels[: len(pool.sources)], pixels) if self.exclude_duplicates else None
        ids = read_ids(data, pool, self.id_key)
        if ids is not None:
            same = same_ids(ids[: len(pool.sources)], [ids[place] for place in places])
            repeats = same if repeats is None else repeats | same
        plan = plan_mix(
            described, draws, max_coverage=self.max_coverage, target_class=self.target_class, repeats=repeats
        )
        images = [to_tensor(pool.row(place)["image"]) for place in range(len(pool.sources))]
        return changed_only(plan, torch.stack(images), _Images(pool, places))

    def _labels(self, data: dict[str, Any], pool: Pool, places: list[int]) -> Tensor | None:
        """(N,) int64 classes of the rows looked at; None where nobody asks for them or there are none."""
        by_model = self.model is not None or not isinstance(self.saliency, str)
        for_backend = by_model and not isinstance(self._describer.backend, FunctionBackend)
        if self.label_key is None or not (for_backend or self.target_class != "any"):
            return None
        labels = read_labels(data, pool, self.label_key, self.metadata_key)
        if labels is None:
            return None
        if labels.ndim == 2 and labels.dtype.kind == "f":
            labels = labels.argmax(1)
        if labels.ndim != 1 or (for_backend and labels.dtype.kind not in "iu"):
            raise InvalidInputError(
                f"expected {self.label_key} to be one class number for each image, or class probabilities, "
                f"got {labels.dtype} {labels.shape}"
            )
        classes = labels if labels.dtype.kind in "iu" else np.unique(labels, return_inverse=True)[1]
        return torch.from_numpy(classes[places].astype(np.int64))

    def _mix(
        self,
        name: str,
        kind: str,
        value: Any,
        *,
        union: Array,
        backgrounds: list[dict[str, Any] | None],
        instances: list[str],
        batched: bool,
        **params: Any,
    ) -> Any:
        """Composite the target ``name`` by the decision of :meth:`decide`, or cut it if it holds instances."""
        if not any(backgrounds) or not len(value):
            return value
        key, many = row_key(name, batched), kind in ("images", "masks")
        pictures = list(value) if many else [value]
        if name in instances:
            left = cut(pictures, union)
            return np.stack(left) if many else left[0]
        if any(row is not None and key not in row for row in backgrounds) or (batched and not many):
            known = next(", ".join(row) for row in backgrounds if row)
            raise InvalidInputError(f"this mix was decided without {name}; it was for {len(union)} x ({known})")
        others: list[Any] = [None if row is None else row[key] for row in backgrounds]
        if many and not batched:  # several masks of one image
            others, union = others[0], union.repeat(len(pictures), axis=0)
        feather = 0 if kind in ("mask", "masks") else self.feather  # class indices cannot fade into each other
        mixed = composite(pictures, others, union, feather=feather)
        return np.stack(mixed) if many else mixed[0]

    @staticmethod
    def _keep(value: Any, *args: Any, **params: Any) -> Any:
        return value


_REMEMBERED = 256


class _Images(Sequence[Tensor]):
    """The images of some rows of the pool as (C, H, W), brought to the sources' size when they are asked for."""

    def __init__(self, pool: Pool, places: list[int]) -> None:
        self.pool, self.places = pool, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, row: Any) -> Any:
        return to_tensor(self.pool.row(self.places[row])["image"])


def _remembered(remember: int | None, *stages: Any) -> int:
    """How many donors to remember: by default none where a stage is an object, which may change."""
    if remember is None:
        return _REMEMBERED if all(stage is None or isinstance(stage, str) for stage in stages) else 0
    if isinstance(remember, bool) or not isinstance(remember, int) or remember < 0:
        raise InvalidInputError(f"remember must be a number of donors, 0 or more, or None, got {remember!r}")
    return remember


def _nothing(images: Any) -> dict[str, Any]:
    """The decision about an empty batch."""
    size = images.shape[1:3] if isinstance(images, np.ndarray) else (0, 0)
    union = np.zeros((0, *size), dtype=bool)
    return {"union": union, "backgrounds": [], "instances": [], "batched": True, "target": []}


def _names(instance_keys: Sequence[str] | None) -> tuple[str, ...] | None:
    if instance_keys is None:
        return None
    if isinstance(instance_keys, str) or not all(isinstance(name, str) for name in instance_keys):
        raise InvalidInputError(f"instance_keys must be names of mask targets or None, got {instance_keys!r}")
    return tuple(instance_keys)
