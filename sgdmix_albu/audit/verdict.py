"""From measures to a verdict in one sentence and what to try next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from sgdmix_albu.audit.signs import GREEDY, SIGNS, Flag, Sign
from sgdmix_albu.types import BEST_MASK, BEST_SALIENCY

# A mask is complete that holds at least this share of its object. A quarter of a bird is more than its head or
# its tail: what is cut there is what tells fine-grained classes apart. The same quarter, showing in the mix, is
# what a target may leak.
COMPLETE = 0.75

# The specification: "if more than 20% of samples show incomplete object coverage, the core assumption of
# saliency reliability is broken". The same share is the limit for leaks and for warning signs.
TOLERATED = 0.20

# Mean spill above which masks that miss their objects are called misplaced rather than too small, and masks that
# hold them are called too wide.
_WIDE_SPILL = 0.15

Level = Literal["trusted", "unproven", "doubtful", "untrusted"]


@dataclass(frozen=True)
class Verdict:
    """What to think of a backend and a preset on this data.

    Attributes:
        level: "trusted" (true masks say so), "unproven" (no true masks, no frequent sign), "doubtful" (frequent
            warning signs), "untrusted" (true masks show failure, or much is left unmixed).
        sentence: The reason, one sentence.
        advice: What to try next, the most promising first.
    """

    level: Level
    sentence: str
    advice: tuple[str, ...]


def mean(values: Tensor) -> float | None:
    """Mean over what is not NaN, None where nothing is left.

    Example:
        >>> import torch
        >>> mean(torch.tensor([1.0, torch.nan])), mean(torch.tensor([torch.nan]))
        (1.0, None)
    """
    known = values[~values.isnan()]
    return float(known.mean()) if len(known) else None


def share(values: Tensor, chosen: Tensor) -> float | None:
    """Share of ``chosen`` among the values that are not NaN, None where all are NaN.

    Example:
        >>> import torch
        >>> coverage = torch.tensor([0.5, 0.9, torch.nan])
        >>> share(coverage, coverage < 0.75)
        0.5
    """
    known = ~values.isnan()
    return float(chosen[known].double().mean()) if bool(known.any()) else None  # in single, 2 of 10 is over 0.2


def incomplete_share(measures: dict[str, Tensor], complete: float = COMPLETE) -> float | None:
    """Share of the masks that hold less than ``complete`` of their object; None without true masks."""
    return share(measures["coverage"], measures["coverage"] < complete) if "coverage" in measures else None


def leaking_share(measures: dict[str, Tensor]) -> float | None:
    """Share of the pairs that show more than a quarter of the target's object; None without true masks."""
    return share(measures["leak"], measures["leak"] > 1 - COMPLETE) if "leak" in measures else None


def judge(
    measures: dict[str, Tensor], flags: dict[str, list[Flag]], applied: Tensor, tried: tuple[str, str]
) -> Verdict:
    """Judge one variant on its measured sources.

    Args:
        measures: Name to (n,) values; with "coverage", "spill" and "leak" where there are true masks.
        flags: From :func:`sgdmix_albu.audit.signs.find_flags`.
        applied: (n,) bool, True where the source was mixed.
        tried: Names of backend and preset, so that they are not advised again.
    """
    count = len(applied)
    unmixed = float((~applied).double().mean())
    frequent = _frequent(flags, count)
    incomplete = incomplete_share(measures)
    if unmixed > TOLERATED:
        return Verdict(
            "untrusted",
            f"{unmixed:.0%} of the sources were left unmixed: nothing usable was found in them.",
            (_other_backend(tried), *(sign.advice for sign in frequent)),
        )
    if incomplete is None:
        return _by_signs(flags, count, tried)
    leaking = leaking_share(measures) or 0.0
    if incomplete > TOLERATED:
        return Verdict(
            "untrusted",
            f"Not to be trusted on this data: {incomplete:.0%} of the masks are incomplete (they hold less than "
            f"{COMPLETE:.0%} of their object; {TOLERATED:.0%} is tolerated).",
            _against_incomplete(measures, tried),
        )
    if leaking > TOLERATED:
        return Verdict(
            "untrusted",
            f"Not to be trusted on this data: in {leaking:.0%} of the pairs more than {1 - COMPLETE:.0%} of the "
            f"target's object shows in the mix ({TOLERATED:.0%} is tolerated).",
            (_other_backend(tried), "more candidates, so that the two objects lie closer together"),
        )
    greedy = len(flags[GREEDY]) / count
    whole = f"{1 - incomplete:.0%} of the masks hold at least {COMPLETE:.0%} of their object"
    if greedy > TOLERATED:
        return Verdict(
            "doubtful",
            f"Objects are kept ({whole}), but in {greedy:.0%} of the mixes what is kept fills the canvas: hardly any "
            "new background is left.",
            tuple(sign.advice for sign in frequent if sign.name == GREEDY),
        )
    spilled = mean(measures["spill"]) or 0.0
    return Verdict(
        "trusted",
        f"Can be trusted on this data: {whole}, and {1 - leaking:.0%} of the mixes show at most {1 - COMPLETE:.0%} of "
        f"the target's. Of its old background a source brings {spilled:.0%} along.",
        ("a tighter mask preset: what is kept round the objects shows as a halo",) if spilled > _WIDE_SPILL else (),
    )


def _by_signs(flags: dict[str, list[Flag]], count: int, tried: tuple[str, str]) -> Verdict:
    frequent = _frequent(flags, count)
    if not frequent:
        return Verdict(
            "unproven",
            f"No warning sign on more than {TOLERATED:.0%} of the samples. Without true masks that is no proof: "
            "look at the samples below.",
            (),
        )
    named = ", ".join(f"{sign.name} ({len(flags[sign.name]) / count:.0%} of the samples)" for sign in frequent)
    return Verdict(
        "doubtful", f"Look before you trust it: {named}.", (_other_backend(tried), *(sign.advice for sign in frequent))
    )


def _frequent(flags: dict[str, list[Flag]], count: int) -> list[Sign]:
    return [sign for sign in SIGNS if len(flags.get(sign.name, ())) > TOLERATED * count]


def _against_incomplete(measures: dict[str, Tensor], tried: tuple[str, str]) -> tuple[str, ...]:
    second = "a preset that grows or refines masks: these lie on their objects but are too small"
    if (mean(measures["spill"]) or 0.0) > _WIDE_SPILL:
        second = "a larger mask would not help: these lie on the background, the saliency looks at the wrong thing"
    return _other_backend(tried), second


def _other_backend(tried: tuple[str, str]) -> str:
    if tried == (BEST_SALIENCY, BEST_MASK):
        return "Grad-CAM from a classifier that was trained on this data: --saliency gradcam --model FILE --arch NAME"
    return f"the default, made for whole objects: --saliency {BEST_SALIENCY} --mask {BEST_MASK}"
