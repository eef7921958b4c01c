"""Face one: ``SGDMix``, a torchvision v2 transform over batches."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.data import get_worker_info
from torchvision import tv_tensors
from torchvision.transforms import v2

from sgdmix_albu.blending import blend
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.masks import MaskPreset, get_mask
from sgdmix_albu.memory import Memory
from sgdmix_albu.mixing import changed_only, check_settings, describe, draw, plan_mix
from sgdmix_albu.saliency import get_backend
from sgdmix_albu.saliency.given import SaliencyMap, given_maps
from sgdmix_albu.samples import check_leaves, default_labels, mixable
from sgdmix_albu.selection import same_pixels
from sgdmix_albu.types import BEST_MASK, BEST_SALIENCY, MixPlan, TargetClass

if TYPE_CHECKING:
    from sgdmix_albu.refine.preserve import Preserve
    from sgdmix_albu.refine.refiner import Refined, Refiner
    from sgdmix_albu.saliency.base import SaliencyBackend

__all__ = ["SGDMix"]

Getter: TypeAlias = Callable[[Any], Any]


class SGDMix(v2.Transform):  # type: ignore[misc]  # torchvision ships no types
    """Put each image of a batch on the background of its best-matching neighbour; labels stay the source's.

    SGD-Mix (arXiv 2505.11813, section 5): the target is the candidate whose saliency map is nearest (L2);
    source pixels are kept wherever either image is salient; the target's background is taken elsewhere.
    Use it on batches: after the loader or inside its ``collate_fn``, also in workers.

    Args:
        saliency: A backend's name (see :func:`sgdmix_albu.saliency.list_backends`), a backend, a function
            ``(B, C, H, W) -> (B, H, W)``, a ``captum.attr.Attribution``, or "given" for maps or masks that
            travel with the sample.
        model: The classifier that model-based saliency ("gradcam", ...) looks through. It is left as it was
            found, is no part of ``state_dict()``, and may be the model in training.
        layer: Its layer, a module or dotted name, where the backend takes one; None finds it.
        p: Probability, for each image by itself, of being mixed; the others come back bit-identical.
        candidates: N, the candidates drawn for each image (the paper: 30 to 50).
        mask: A mask preset's name (see :func:`sgdmix_albu.masks.list_masks`) or a callable.
        max_coverage: The largest fraction of an image that a union mask may cover; beyond it the next-nearest
            candidate is tried, then the image stays unmixed.
        target_class: "any", or only targets of the "same" or a "different" class.
        exclude_duplicates: Never choose a target with exactly the source's pixels.
        feather: Width in pixels of the fade outside the mask; 0 is the paper's hard edge.
        memory: Images of earlier batches that are kept as further candidates, for small batches. Each
            process (worker) remembers its own.
        refiner: Harmonise the mixed images by diffusion: a refiner's key, its folder, or what
            :func:`sgdmix_albu.refine.get_refiner` returned. Loaded when the first image is mixed; a pickle carries
            the settings alone. The batch needs labels, and images in [0, 1] or uint8: put this before Normalize.
        strength: Its translation strength S in (0, 1]; a tuple to draw from, or "adaptive".
        preserve: How it protects the object: "none", "soft" or "strict".
        labels_getter: How to find the labels in the input, as in torchvision's ``CutMix``: "default", a
            callable on the input, or None for no labels. They are only read, and only where a backend or
            ``target_class`` needs them.
        saliency_getter: With ``saliency="given"``, a callable on the input that returns the maps, (B, H, W);
            None looks for a ``SaliencyMap`` or the key "saliency".
        generator: Generator of the draws; None for torch's own, which a loader seeds for each worker and epoch.

    Shapes:
        ``images`` (B, C, H, W), uint8 or float, a tensor or ``tv_tensors.Image``, anywhere in a nested
        structure. ``tv_tensors.Mask`` (B, ..., H, W) is composited with the same union mask; boxes, key
        points and everything else come back as they came.

    Attributes:
        guard_counts: How many images each guard has touched so far in this process; keys as in
            :class:`sgdmix_albu.types.Guards`.
        refined: What the refiner did to the mixed images of the last batch; see
            :class:`sgdmix_albu.refine.Refined`.

    Raises:
        InvalidInputError: (a ``ValueError``) PIL images, wrong dimensions, sizes that differ.
        InvalidTypeError: (a ``TypeError``) no image in the input.

    Example:
        >>> import torch
        >>> from sgdmix_albu import SGDMix
        >>> images, labels = torch.rand(8, 3, 64, 64), torch.arange(8)
        >>> mixed, same = SGDMix("spectral_residual")(images, labels)
        >>> mixed.shape, same is labels
        (torch.Size([8, 3, 64, 64]), True)
    """

    def __init__(
        self,
        saliency: Any = BEST_SALIENCY,
        *,
        model: torch.nn.Module | None = None,
        layer: torch.nn.Module | str | None = None,
        p: float = 1.0,
        candidates: int = 50,
        mask: str | MaskPreset = BEST_MASK,
        max_coverage: float = 0.95,
        target_class: TargetClass = "any",
        exclude_duplicates: bool = True,
        feather: float = 0,
        memory: int = 0,
        refiner: str | os.PathLike[str] | Refiner | None = None,
        strength: float | tuple[float, ...] | str = 0.7,
        preserve: Preserve = "none",
        labels_getter: Getter | Literal["default"] | None = "default",
        saliency_getter: Getter | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_settings(
            p=p, candidates=candidates, max_coverage=max_coverage, target_class=target_class, feather=feather
        )
        if refiner is not None:
            from sgdmix_albu.refine.preserve import check_mode
            from sgdmix_albu.refine.strength import check_strength

            check_strength(strength)
            check_mode(preserve)
        if labels_getter != "default" and labels_getter is not None and not callable(labels_getter):
            raise InvalidInputError(f"labels_getter must be 'default', a callable or None, got {labels_getter!r}")
        if isinstance(memory, bool) or not isinstance(memory, int) or memory < 0:
            raise InvalidInputError(f"memory must be a number of images, 0 or more, got {memory!r}")
        given = isinstance(saliency, str) and saliency == "given"
        if saliency_getter is not None and not given:
            raise InvalidInputError(f"saliency_getter goes with saliency='given', got saliency={saliency!r}")
        options = {name: value for name, value in (("model", model), ("layer", layer)) if value is not None}
        if given and options:
            raise InvalidInputError(f"saliency='given' takes no {' and no '.join(options)}")
        # A backend is no nn.Module, so the model it holds stays out of state_dict(), parameters() and to().
        self._backend: SaliencyBackend | None = None if given else get_backend(saliency, **options)
        self._refiner = _found_refiner(refiner)
        self._preset = get_mask(mask)
        self._memory = Memory(memory)
        self.saliency, self.mask, self.memory = saliency, mask, memory
        self.p, self.candidates, self.max_coverage, self.feather = p, candidates, max_coverage, feather
        self.target_class, self.exclude_duplicates = target_class, exclude_duplicates
        self.refiner, self.strength, self.preserve = refiner, strength, preserve
        self.refined: Refined | None = None
        self.labels_getter, self.saliency_getter = labels_getter, saliency_getter
        self.generator = generator
        self.guard_counts: Counter[str] = Counter()

    # Targets depend on the data: one graph break here instead of twenty inside.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, *inputs: Any) -> Any:
        """Mix the batch found in ``inputs``, which come back in the same structure."""
        sample = inputs if len(inputs) > 1 else inputs[0]
        flat, spec = tree_flatten(sample)
        labels = self._find_labels(sample)
        maps = self._find_maps(sample, flat)
        leaves = mixable(flat, labels, maps)
        params = self.make_params([flat[i] for i in leaves], labels=labels, maps=maps)
        for i in leaves:
            flat[i] = self.transform(flat[i], params)
        return tree_unflatten(flat, spec)

    def make_params(
        self, flat_inputs: list[Any], *, labels: Tensor | None = None, maps: Tensor | None = None
    ) -> dict[str, Any]:
        """Decide everything: saliency, masks, targets. ``transform`` with the result repeats the mix exactly.

        Args:
            flat_inputs: The tensors to be mixed, each (B, ...), the image that saliency looks at first.
            labels: (B,) or (B, K), for model-based saliency and class constraints.
            maps: Given saliency maps, for ``saliency="given"``.

        Returns:
            ``plan``, a :class:`sgdmix_albu.types.MixPlan`; ``draws``, the randomness in it; ``leaves`` and
            ``remembered``, the rows that a memory adds to each tensor; ``refine``, labels and seeds for a refiner.
        """
        images = flat_inputs[0].as_subclass(Tensor)
        check_leaves(flat_inputs, labels)
        described = describe(self._maps(images, labels, maps), images, self._preset, self._constraint(labels))
        remembered, pool = self._memory.recall(flat_inputs, described)
        stream = self._stream()
        draws = draw(len(images), len(pool.masks), p=self.p, candidates=self.candidates, generator=stream)
        everything = torch.cat([images, *(rows[0][None] for rows in remembered)]) if remembered else images
        repeats = same_pixels(images, everything) if self.exclude_duplicates else None
        plan = plan_mix(pool, draws, max_coverage=self.max_coverage, target_class=self.target_class, repeats=repeats)
        plan = changed_only(plan, images, everything)
        self._memory.store(flat_inputs, described)
        self.guard_counts.update(plan.guards.counts())
        return {
            "plan": plan,
            "draws": draws,
            "leaves": tuple(flat_inputs),
            "remembered": remembered,
            "refine": None if self._refiner is None else self._refining(len(images), labels, stream),
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Composite one tensor of the sample by the plan in ``params``."""
        plan = params["plan"]
        batch = inpt.as_subclass(Tensor)
        pool: Any = batch
        if params["remembered"]:
            place = next((i for i, leaf in enumerate(params["leaves"]) if leaf is inpt), None)
            if place is None:
                raise InvalidInputError("a mix that used a memory can only be replayed on the same tensors")
            pool = [*batch, *(rows[place] for rows in params["remembered"])]
        hard = isinstance(inpt, tv_tensors.Mask)  # class indices cannot fade into each other
        mixed = blend(batch, pool, plan.target, plan.masks, feather=0 if hard else self.feather)
        if self._refiner is not None and not hard:
            mixed = self._refine(self._refiner, mixed, plan, **params["refine"])
        return tv_tensors.wrap(mixed, like=inpt) if isinstance(inpt, tv_tensors.TVTensor) else mixed

    def __getstate__(self) -> dict[str, Any]:
        # As plain bytes: a spawned worker dies of a pickled torch.Generator, whose state comes as a shared tensor.
        state = self.__dict__.copy()
        if self.generator is not None:
            state["generator"] = bytes(self.generator.get_state().tolist())
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if state["generator"] is not None:
            self.generator = torch.Generator()
            self.generator.set_state(torch.tensor(list(state["generator"]), dtype=torch.uint8))

    def _maps(self, images: Tensor, labels: Tensor | None, maps: Tensor | None) -> Tensor:
        if self._backend is None:
            if maps is None:
                raise InvalidInputError(
                    "saliency='given' found no maps: put a SaliencyMap or the key 'saliency' into the sample, "
                    "or pass saliency_getter"
                )
            return given_maps(maps, images.shape)
        if labels is not None and labels.ndim == 2:
            labels = labels.argmax(1)
        if labels is not None and labels.dtype.is_floating_point:
            labels = None
        return self._backend.coarse(images, labels)

    def _refining(self, count: int, labels: Tensor | None, stream: torch.Generator) -> dict[str, Tensor]:
        if labels is None:
            raise InvalidInputError("a refiner needs labels for its prompts, and none were found in the batch")
        seeds = torch.randint(2**62, (count,), generator=stream)
        return {"labels": (labels.argmax(1) if labels.ndim == 2 else labels).cpu(), "seeds": seeds}

    def _refine(self, refiner: Refiner, mixed: Tensor, plan: MixPlan, *, labels: Tensor, seeds: Tensor) -> Tensor:
        rows = plan.applied.cpu().nonzero()[:, 0]
        self.refined = refiner.refine(
            mixed[rows.to(mixed.device)],
            classes=labels[rows],
            strength=self.strength,
            seeds=seeds[rows],
            masks=plan.masks[rows.to(plan.masks.device)],
            preserve=self.preserve,
        )
        done = mixed.clone()
        done[rows.to(mixed.device)] = self.refined.images
        return done

    def _constraint(self, labels: Tensor | None) -> Tensor | None:
        return None if self.target_class == "any" else labels

    def _find_labels(self, sample: Any) -> Tensor | None:
        if self.labels_getter == "default":
            return default_labels(sample)
        labels = self.labels_getter(sample) if callable(self.labels_getter) else None
        if labels is not None and not isinstance(labels, Tensor):
            raise InvalidInputError(f"The labels must be a tensor, but got {type(labels)} instead.")
        return labels

    def _find_maps(self, sample: Any, flat: list[Any]) -> Tensor | None:
        if self._backend is not None:
            return None
        if self.saliency_getter is not None:
            found = self.saliency_getter(sample)
        else:
            found = next((leaf for leaf in flat if isinstance(leaf, SaliencyMap)), None)
            if found is None and isinstance(sample, Mapping):
                found = sample.get("saliency")
        if found is not None and not isinstance(found, Tensor):
            raise InvalidInputError(f"given saliency must be a (B, H, W) tensor, got {type(found).__name__}")
        return found

    def _stream(self) -> torch.Generator:
        """A generator for one call, from one number of the parent stream, the rank and, if need be, the worker.

        Torch's own stream is seeded for each worker and epoch by the loader; a generator of the user's is
        copied into every worker as it stands, so there the worker's seed is added. Ranks that start from the
        same seed are told apart by their number.
        """
        seed = int(torch.randint(2**62, (), generator=self.generator))
        worker = get_worker_info() if self.generator is not None else None
        stream = hash((seed, int(os.environ.get("RANK", "0")), worker.seed if worker else 0))
        return torch.Generator().manual_seed(stream % 2**63)


def _found_refiner(refiner: str | os.PathLike[str] | Refiner | None) -> Refiner | None:
    if isinstance(refiner, str | os.PathLike):
        from sgdmix_albu.refine import get_refiner

        return get_refiner(refiner)
    return refiner
