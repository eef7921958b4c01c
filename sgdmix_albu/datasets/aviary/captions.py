"""A scene in words: every attribute that can be seen, in a fixed order."""

from __future__ import annotations

from sgdmix_albu.datasets.aviary.scene import Scene
from sgdmix_albu.datasets.aviary.species import Species

_CROWNS = {"cap": "a {} cap", "stripe": "a {} crown stripe", "crest": "a {} crest"}
_BARS = ("", "one white wing bar", "two white wing bars")
_BREASTS = {"streaks": "a {}-streaked breast", "bib": "a {} bib", "band": "a {} breast band"}
_EYES = {"ring": "a white eye ring", "stripe": "a black eye stripe", "brow": "a white brow"}
_PLACES = {
    "forest": "in a forest",
    "reeds": "in reeds",
    "meadow": "in a meadow",
    "shore": "on a shore",
    "rocks": "among rocks",
    "snow": "in snow",
    "sky": "under an open sky",
    "garden": "in a garden",
}


def describe(scene: Scene) -> str:
    """Caption of a scene, such as "a blue bird with an orange belly, one white wing bar, ..., perched in reeds"."""
    return f"{describe_species(scene.species)}, {scene.stance}, facing {scene.facing}, {_PLACES[scene.habitat]}"


def describe_species(species: Species) -> str:
    """What sets a species apart, in words; plain parts are not mentioned.

    Example:
        >>> from sgdmix_albu.datasets.aviary.species import species_table
        >>> describe_species(species_table()[0])
        'an olive bird with a yellow belly, a black cap, a medium slender black bill, a medium square tail'
    """
    tip = "" if species.tail_tip == "plain" else f" with a {species.tail_tip} tip"
    parts = [
        f"{_with_article(species.under)} belly",
        _CROWNS.get(species.crown, "").format(species.crown_colour),
        _BARS[species.wing_bars],
        _BREASTS.get(species.breast, "").format(species.breast_colour),
        _EYES.get(species.eye, ""),
        f"a {species.bill_length} {species.bill} {species.bill_colour} bill",
        f"a {species.tail_length} {species.tail} tail{tip}",
    ]
    return f"{_with_article(species.back)} bird with {', '.join(filter(None, parts))}"


def _with_article(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"
