"""The aviary's species: a table of attributes, made by rules.

Every six families share one colour scheme rule; the four siblings of a family have the same colours and differ from the
eldest in one or two parts only. That is the fine grain: a family is easy, a sibling takes a close look.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache

SIBLINGS = 4
MAX_SPECIES = 54 * SIBLINGS
_BLOCK = 6  # families that take turns: species 0..5 are the eldest of families 0..5, species 6..11 their next siblings


@dataclass(frozen=True, slots=True)
class Species:
    """What a species looks like, in words; every pair of species differs in at least one of these.

    Attributes:
        index: Place in the endless list of species, from 0.
        name: English name, unique, such as ``"fork-tailed olive warbler"``.
        back, under: Colours of the upper and the underside.
        crown: ``"plain"``, ``"cap"``, ``"stripe"`` or ``"crest"``.
        crown_colour: Colour of the crown mark.
        wing_bars: Pale bars on the wing, 0 to 2.
        bill: ``"cone"``, ``"slender"``, ``"curved"`` or ``"hooked"``.
        bill_length: ``"short"``, ``"medium"`` or ``"long"``.
        bill_colour: Colour of the bill.
        tail: ``"square"``, ``"forked"`` or ``"rounded"``.
        tail_length: ``"short"``, ``"medium"`` or ``"long"``.
        tail_tip: ``"plain"`` or the colour of the tip.
        breast: ``"plain"``, ``"streaks"``, ``"bib"`` or ``"band"``.
        breast_colour: Colour of the breast mark.
        eye: ``"plain"``, ``"ring"``, ``"stripe"`` or ``"brow"``.
    """

    index: int
    name: str
    back: str
    under: str
    crown: str
    crown_colour: str
    wing_bars: int
    bill: str
    bill_length: str
    bill_colour: str
    tail: str
    tail_length: str
    tail_tip: str
    breast: str
    breast_colour: str
    eye: str

    @property
    def marks(self) -> dict[str, str | int]:
        """Everything that can be seen, without the index and the name."""
        return {field.name: getattr(self, field.name) for field in fields(self)[2:]}

    @property
    def folder(self) -> str:
        """Folder and class name, such as ``"006.fork_tailed_olive_warbler"``: sorts in species order."""
        return f"{self.index:03d}.{self.name.replace('-', '_').replace(' ', '_')}"


# Two cycles of unlike length give 60 pairs of colours before one comes again (see `_family`).
_BACKS = ("olive", "blue", "chestnut", "slate", "black", "green", "grey", "teal", "brown", "violet")
_KIND = {
    "yellow": "warbler",
    "orange": "robin",
    "buff": "bunting",
    "white": "flycatcher",
    "rose": "finch",
    "silver": "thrush",
}
_UNDERS = tuple(_KIND)
_CROWNS = ("cap", "plain", "crest", "stripe")
_CROWN_COLOURS = ("black", "red", "white", "yellow", "chestnut", "blue")
_BILLS = ("slender", "cone", "curved", "hooked")
_BILL_COLOURS = ("black", "yellow", "grey", "orange")
_LENGTHS = ("medium", "long", "short")
_TAILS = ("square", "forked", "rounded")
_TIPS = ("plain", "white", "plain", "yellow")
_BREASTS = ("plain", "streaks", "bib", "band")
_EYES = ("plain", "brow", "ring", "stripe")
_PARTS = ("wing", "crown", "tail", "breast", "bill", "eye")  # neighbours in this ring never change together


@lru_cache(maxsize=1)
def species_table() -> tuple[Species, ...]:
    """All species, in order; `Species.index` is the place in this tuple.

    Example:
        >>> table = species_table()
        >>> len(table), table[0].name
        (216, 'common olive warbler')
    """
    return tuple(_species(index) for index in range(MAX_SPECIES))


def _species(index: int) -> Species:
    block, place = divmod(index, _BLOCK * SIBLINGS)
    sibling, turn = divmod(place, _BLOCK)
    family = _BLOCK * block + turn
    eldest = replace(_family(family), index=index)
    kind = f"{eldest.back} {_KIND[eldest.under]}"
    if sibling == 0:
        return replace(eldest, name=f"common {kind}")
    first = family + 2 * (sibling - 1)
    changed = _change(eldest, _PARTS[first % 6], family)
    epithet = _epithet(eldest, changed)
    if (family + sibling) % 2 == 0:
        changed = _change(changed, _PARTS[(first + 3) % 6], family)
    return replace(changed, name=f"{epithet} {kind}")


def _family(f: int) -> Species:
    """The eldest sibling. The steps below only have to spread the attributes evenly over neighbouring families."""
    back = _BACKS[f % 10]
    under = _UNDERS[(f + f // 30) % 6]
    crown = _CROWNS[(f + f // 4) % 4]
    breast = _BREASTS[(3 * f + f // 3) % 4]
    return Species(
        index=0,
        name="",
        back=back,
        under=under,
        crown=crown,
        crown_colour="" if crown == "plain" else _other(_CROWN_COLOURS, f + f // 6, back, under),
        wing_bars=(f + f // 2) % 3,
        bill=_BILLS[(f + f // 5) % 4],
        bill_length=_LENGTHS[(f + f // 4) % 3],
        bill_colour=_BILL_COLOURS[(f + f // 7) % 4],
        tail=_TAILS[(f + f // 3) % 3],
        tail_length=_LENGTHS[(f // 2) % 3],
        tail_tip=_TIPS[(f + f // 3) % 4],
        breast=breast,
        breast_colour=_breast_colour(breast, back, under),
        eye=_EYES[(f + f // 2) % 4],
    )


def _change(species: Species, part: str, family: int) -> Species:
    """The same bird with one part different; which way depends on the family."""
    step = 1 + family % 2
    if part == "wing":
        return replace(species, wing_bars=(species.wing_bars + 1 + family // 6 % 2) % 3)
    if part == "crown":
        crown = _next(_CROWNS, species.crown, step)
        colour = species.crown_colour or _other(_CROWN_COLOURS, family, species.back, species.under)
        return replace(species, crown=crown, crown_colour="" if crown == "plain" else colour)
    if part == "bill":
        if family % 2:
            return replace(species, bill_length=_next(_LENGTHS, species.bill_length, 1))
        return replace(species, bill=_next(_BILLS, species.bill, step))
    if part == "tail":
        if family % 3 == 0:
            return replace(species, tail_tip="white" if species.tail_tip == "plain" else "plain")
        if family % 3 == 1:
            return replace(species, tail_length=_next(_LENGTHS, species.tail_length, 1))
        return replace(species, tail=_next(_TAILS, species.tail, 1))
    if part == "breast":
        breast = _next(_BREASTS, species.breast, step)
        return replace(species, breast=breast, breast_colour=_breast_colour(breast, species.back, species.under))
    return replace(species, eye=_next(_EYES, species.eye, step))


def _epithet(eldest: Species, changed: Species) -> str:
    """The English name of the first difference."""
    words = {
        "wing_bars": ("plain-winged", "one-barred", "two-barred")[changed.wing_bars],
        "crown": {
            "plain": "plain-crowned",
            "cap": f"{changed.crown_colour}-capped",
            "crest": f"{changed.crown_colour}-crested",
            "stripe": f"{changed.crown_colour}-striped",
        }[changed.crown],
        "bill": {"cone": "stout", "slender": "fine", "curved": "curve", "hooked": "hook"}[changed.bill] + "-billed",
        "bill_length": f"{changed.bill_length}-billed",
        "tail_tip": "plain-tailed" if changed.tail_tip == "plain" else f"{changed.tail_tip}-tailed",
        "tail_length": f"{changed.tail_length}-tailed",
        "tail": {"square": "square", "forked": "fork", "rounded": "round"}[changed.tail] + "-tailed",
        "breast": {"plain": "plain", "streaks": "streak", "bib": "bib", "band": "band"}[changed.breast] + "-breasted",
        "eye": {"plain": "plain-faced", "brow": "browed", "ring": "ring-eyed", "stripe": "masked"}[changed.eye],
    }
    return next(word for mark, word in words.items() if getattr(eldest, mark) != getattr(changed, mark))


def _breast_colour(breast: str, back: str, under: str) -> str:
    if breast == "plain":
        return ""
    if breast == "streaks":
        return "brown" if back != "black" else "black"
    return _other(("black", "red", "chestnut"), len(back) + len(under), back, under)


def _other(colours: tuple[str, ...], start: int, *taken: str) -> str:
    """The first colour from ``start`` on, cyclically, that would stand out from those taken."""
    alike = {"rose": "red", "orange": "red", "silver": "white", "brown": "chestnut", "slate": "blue", "teal": "blue"}
    hidden = set(taken) | {alike[colour] for colour in taken if colour in alike}
    order = (colours[(start + k) % len(colours)] for k in range(len(colours)))
    return next(colour for colour in order if colour not in hidden)


def _next(values: tuple[str, ...], value: str, step: int) -> str:
    return values[(values.index(value) + step) % len(values)]
