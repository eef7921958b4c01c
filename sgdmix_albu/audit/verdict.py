"""From measures to a verdict in one sentence and what to try next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from sgdmix_albu.audit.shares import counted, interval, spoken
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
        answer: What to do, in about ten words.
        sentence: Why, with the figures.
        advice: What to try next, the most promising first.
    """

    level: Level
    answer: str
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


def incomplete(measures: dict[str, Tensor], complete: float = COMPLETE) -> tuple[int, int]:
    """How many masks hold less than ``complete`` of their object, and of how many that is known."""
    return counted(measures["coverage"], measures["coverage"] < complete) if "coverage" in measures else (0, 0)


def leaking(measures: dict[str, Tensor]) -> tuple[int, int]:
    """How many pairs show more than a quarter of the target's object, and of how many that is known."""
    return counted(measures["leak"], measures["leak"] > 1 - COMPLETE) if "leak" in measures else (0, 0)


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
    count, unmixed = len(applied), int((~applied).sum())
    frequent = _frequent(flags, count)
    if unmixed > TOLERATED * count:
        return Verdict(
            "untrusted",
            f"Do not use this: {unmixed / count:.0%} of the sources stayed unmixed.",
            f"{spoken(unmixed, count)} of the sources have no usable object or target; {_limit(unmixed, count)}.",
            (_other_backend(tried), *(sign.advice for sign in frequent)),
        )
    bad, known = incomplete(measures)
    if not known:
        return _by_signs(flags, count, tried)
    leaks, pairs = leaking(measures)
    if bad > TOLERATED * known:
        return Verdict(
            "untrusted",
            f"Do not trust these masks: {bad / known:.0%} miss part of their object.",
            f"{spoken(bad, known)} of the masks hold less than {COMPLETE:.0%} of their object; {_limit(bad, known)}.",
            _against_incomplete(measures, tried),
        )
    if leaks > TOLERATED * pairs:
        return Verdict(
            "untrusted",
            f"Do not trust these mixes: {leaks / pairs:.0%} show the target's object.",
            f"In {spoken(leaks, pairs)} of the pairs more than {1 - COMPLETE:.0%} of the target's object shows in the "
            f"mix; {_limit(leaks, pairs)}.",
            (_other_backend(tried), "more candidates, so that the two objects are closer together"),
        )
    greedy = len(flags[GREEDY])
    whole = f"{spoken(known - bad, known)} of the masks hold at least {COMPLETE:.0%} of their object"
    if greedy > TOLERATED * count:
        return Verdict(
            "doubtful",
            f"Look first: {greedy / count:.0%} of the mixes have little new background.",
            f"Objects are kept: {whole}. But in {spoken(greedy, count)} of the mixes the kept part fills the image.",
            tuple(sign.advice for sign in frequent if sign.name == GREEDY),
        )
    spilled = mean(measures["spill"]) or 0.0
    close = [_limit(hits, total) for hits, total in ((bad, known), (leaks, pairs)) if _is_close(hits, total)][:1]
    return Verdict(
        "trusted",
        f"You can trust these masks: {1 - bad / known:.0%} hold their object.",
        f"{whole}; {1 - leaks / max(pairs, 1):.0%} of the mixes show at most {1 - COMPLETE:.0%} of the target's; "
        f"{spilled:.0%} of a source's old background stays{''.join(f'; {text}' for text in close)}.",
        ("a tighter mask preset: the background kept around the objects shows as a halo",)
        if spilled > _WIDE_SPILL
        else (),
    )


def _by_signs(flags: dict[str, list[Flag]], count: int, tried: tuple[str, str]) -> Verdict:
    frequent = _frequent(flags, count)
    if not frequent:
        return Verdict(
            "unproven",
            "No frequent warning signs. Look at the samples.",
            f"No warning sign is on more than {TOLERATED:.0%} of the images. Without true masks this proves nothing.",
            (),
        )
    worst = max(frequent, key=lambda sign: len(flags[sign.name]))
    named = "; ".join(f"{sign.name} on {spoken(len(flags[sign.name]), count)} of the images" for sign in frequent)
    return Verdict(
        "doubtful",
        f"Look first: {worst.name} on {len(flags[worst.name]) / count:.0%} of the images.",
        f"Warning signs: {named}.",
        (_other_backend(tried), *(sign.advice for sign in frequent)),
    )


def _frequent(flags: dict[str, list[Flag]], count: int) -> list[Sign]:
    return [sign for sign in SIGNS if len(flags.get(sign.name, ())) > TOLERATED * count]


def _is_close(hits: int, count: int) -> bool:
    low, high = interval(hits, count)
    return low <= TOLERATED <= high


def _limit(hits: int, count: int) -> str:
    """The limit, and whether so many images can tell on which side of it a share lies."""
    limit = f"the limit is {TOLERATED:.0%}"
    return f"{limit}, which the interval includes: measure more pairs" if _is_close(hits, count) else limit


def _against_incomplete(measures: dict[str, Tensor], tried: tuple[str, str]) -> tuple[str, ...]:
    second = "a preset that grows or refines masks: these are on their objects but too small"
    if (mean(measures["spill"]) or 0.0) > _WIDE_SPILL:
        second = "a larger mask would not help: these are on the background; the saliency sees the wrong thing"
    return _other_backend(tried), second


def _other_backend(tried: tuple[str, str]) -> str:
    if tried == (BEST_SALIENCY, BEST_MASK):
        return "Grad-CAM from a classifier that was trained on this data: --saliency gradcam --model FILE --arch NAME"
    return f"the default, made for whole objects: --saliency {BEST_SALIENCY} --mask {BEST_MASK}"
