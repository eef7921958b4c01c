"""Warning signs that need no true masks, under the names of the method's known failures.

Each sign is a set of tests on the measures. The limits were set so that true masks, used as if a backend had
found them, pass nearly all of them on the ECSSD photographs; they say "look here", not "wrong". Those of the last two
signs were set on photographs of birds and of ImageNet's classes, with U2-Net's maps as truth, by Youden's index.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sgdmix_albu.audit.variant import Variant
from sgdmix_albu.types import Guards

# A mask is doubtful that holds less than this share of what a better backend sees, or outside of which more than this
# share of a classifier's evidence lies. A target shows of which more than this share is seen: a bird's face is as much.
AGREEING, OUTSIDE, SEEN = 0.75, 0.5, 0.05


@dataclass(frozen=True)
class Sign:
    """A failure that can be suspected without true masks.

    Attributes:
        name: The specification's name of the failure.
        meaning: What goes wrong, for people.
        advice: What to try.
    """

    name: str
    meaning: str
    advice: str


@dataclass(frozen=True)
class Flag:
    """One image under suspicion.

    Attributes:
        row: The source's row in the sample.
        severity: From 0 at the limit to 1 at the worst value there is.
        reason: The figure that raised the flag, in words.
    """

    row: int
    severity: float
    reason: str


@dataclass(frozen=True)
class _Test:
    sign: str
    measure: str
    limit: float
    above: bool
    words: str

    def flag(self, row: int, value: float, better: str) -> Flag | None:
        """None where the value is within the limit, or NaN."""
        past = value - self.limit if self.above else self.limit - value
        if not past > 0:
            return None
        room = 1 - self.limit if self.above else self.limit
        return Flag(row, min(1.0, past / room), self.words.format(f"{value:.0%}", better=better))


SALIENCY, GREEDY, GEOMETRY, VOID, PAINT, DOUBT, LEAK = (
    "saliency failure",
    "mask too greedy",
    "geometry mismatch",
    "occlusion or void",
    "mostly paint",
    "doubtful mask",
    "target shows",
)

SIGNS = (
    Sign(
        SALIENCY,
        "The mask is tiny, scattered in many pieces or on the border, or the saliency sits in one corner or on a spot "
        "that many images share, as it does on a watermark: the wrong pixels are kept.",
        "another saliency backend; a mask preset that joins pieces; cropping a watermark away",
    ),
    Sign(
        GREEDY,
        "The kept part fills the image, so the mix has almost no new background.",
        "a tighter mask preset; more candidates, so that nearer targets are found; a lower max_coverage",
    ),
    Sign(
        GEOMETRY,
        "The nearest candidate is still far: its object is elsewhere or has another shape, such as a flying "
        "bird for a sitting one.",
        "more candidates, or a memory of earlier batches; targets of the same class",
    ),
    Sign(
        VOID,
        "A large part of the mask covers only the target's object. There the mix shows the source's old "
        "background, as a halo.",
        "more candidates; a tighter mask preset; refinement by diffusion, which closes such holes",
    ),
    Sign(
        PAINT,
        "A large part of the visible new background is paint: smooth, without detail, where the target had a large "
        "object.",
        "a tighter mask preset; more candidates, so that the source hides more of the paint; refinement by diffusion",
    ),
    Sign(
        DOUBT,
        "A better backend sees more of the object than the mask contains, or the classifier looks outside the mask. "
        "The missing part is lost in a source, and shows in a target.",
        "the better backend itself; --min-agreement in mix and generate, which leaves such images out",
    ),
    Sign(
        LEAK,
        "A solid part of the target's object, as a better backend sees it, shows in the mix: a face, a crown or a wing "
        "next to the source's.",
        "the better backend itself; --min-agreement in mix and generate, which leaves such targets out",
    ),
)

_TESTS = (
    _Test(SALIENCY, "mask area", 0.02, False, "mask holds only {} of the image"),
    _Test(SALIENCY, "largest piece", 0.5, False, "scattered: the largest piece is {} of the mask"),
    _Test(SALIENCY, "border share", 0.45, True, "{} of the mask is along the border"),
    _Test(SALIENCY, "corner share", 0.25, True, "{} of the saliency sits in one corner"),
    _Test(SALIENCY, "shared spot", 2 / 64, True, "{} of the saliency sits on a small spot that many images share"),
    _Test(GREEDY, "kept", 0.8, True, "{} of the source is kept"),
    _Test(GEOMETRY, "relative distance", 0.85, True, "nearest is at {} of a typical candidate's distance"),
    _Test(GEOMETRY, "overlap", 0.2, False, "the two masks overlap by {}"),
    _Test(VOID, "void", 0.4, True, "{} of the union is the target's object only"),
    _Test(PAINT, "painted", 0.4, True, "{} of the new background is paint"),
    _Test(DOUBT, "agreement", AGREEING, False, "mask holds only {} of the object that {better} sees"),
    _Test(DOUBT, "evidence outside", OUTSIDE, True, "{} of what the classifier looks at is outside the mask"),
    _Test(
        LEAK, "seen of target", SEEN, True, "{} of the target's object, as {better} sees it, shows in one piece or more"
    ),
)


def find_flags(variant: Variant, measured: int) -> dict[str, list[Flag]]:
    """Images under suspicion, for each sign, the worst first; an image appears once under each sign.

    Signs for which nothing was measured are left out, but for those that mixing itself raises.

    Args:
        variant: What a backend and a preset made of the sample.
        measured: Only the first so many sources are looked at.
    """
    tests = [test for test in _TESTS if test.measure in variant.measures]
    asked = {SALIENCY, GREEDY, GEOMETRY} | {test.sign for test in tests}
    found: dict[str, dict[int, Flag]] = {sign.name: {} for sign in SIGNS if sign.name in asked}
    for sign, flag in _guarded(variant.plan.guards, measured):
        found[sign][flag.row] = flag
    unmixed, better = ~variant.plan.applied, str(variant.witnesses.name)
    for test in tests:
        for row, value in enumerate(variant.measures[test.measure][:measured].tolist()):
            # An unmixed image keeps all of itself; the guard that left it so has spoken for it already.
            seen = None if test.measure == "kept" and unmixed[row] else test.flag(row, value, better)
            known = found[test.sign].get(row)
            if seen and (known is None or seen.severity > known.severity):
                found[test.sign][row] = seen
    return {name: sorted(flags.values(), key=lambda flag: (-flag.severity, flag.row)) for name, flags in found.items()}


def _guarded(guards: Guards, measured: int) -> Iterator[tuple[str, Flag]]:
    """Flags of images that mixing itself left alone."""
    for row, refused in enumerate(guards.over_coverage[:measured].tolist()):
        if guards.flat_saliency[row]:
            yield SALIENCY, Flag(row, 1.0, "flat saliency, left unmixed")
        elif guards.empty_mask[row]:
            yield SALIENCY, Flag(row, 1.0, "empty mask, left unmixed")
        elif guards.no_target[row] and refused:
            yield GREEDY, Flag(row, 1.0, f"left unmixed: {refused} candidates over max_coverage")
        elif guards.no_target[row]:
            yield GEOMETRY, Flag(row, 1.0, "left unmixed: no candidate with a mask")
