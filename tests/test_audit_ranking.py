"""Which variant is the best: the default among those that the sample cannot tell apart, whatever their order."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from scipy import stats

from sgdmix_albu.audit.ranking import rank
from sgdmix_albu.audit.signs import SIGNS, Flag
from sgdmix_albu.audit.verdict import judge

DEFAULT = ("salient_object", "guided")
NAMES = [("rembg", "otsu"), DEFAULT, ("spectral_residual", "otsu")]


def test_among_equals_the_default_wins_in_every_order() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = [torch.rand(200, generator=generator, dtype=torch.float64) for _ in NAMES]
    for order in permutations(range(3)):
        found = rank(["trusted"] * 3, [scores[place] for place in order], [NAMES[place] for place in order])
        assert NAMES[order[found.best]] == DEFAULT
        assert found.tied == (0, 1, 2)
    without = [place for place in range(3) if NAMES[place] != DEFAULT]
    for order in (without, without[::-1]):
        found = rank(["trusted"] * 2, [scores[place] for place in order], [NAMES[place] for place in order])
        assert NAMES[order[found.best]] == ("rembg", "otsu")  # the alphabet


@pytest.mark.parametrize("better", [0.0, 0.008, 0.02, 0.1])
def test_what_is_told_apart_is_what_a_paired_test_tells_apart(better: float) -> None:
    """The t test of scipy's; at 200 images its limit is 1.97 where the normal distribution's is 1.96."""
    generator = torch.Generator().manual_seed(1)
    default = torch.rand(200, generator=generator, dtype=torch.float64)
    other = default + better + 0.05 * torch.randn(200, generator=generator, dtype=torch.float64)
    found = rank(["unproven"] * 2, [default, other], [DEFAULT, ("rembg", "otsu")])
    sure = stats.ttest_rel(other.numpy(), default.numpy()).pvalue < 0.05
    differs = sure and abs(float((other - default).mean())) > 0.01
    leads = bool(other.mean() > default.mean())
    assert (len(found.tied) == 1) == differs
    assert found.best == int(differs and leads)


def test_a_better_level_is_no_tie() -> None:
    same = torch.zeros(9)
    found = rank(["untrusted", "trusted"], [same, same], [DEFAULT, ("rembg", "otsu")])
    assert (found.best, found.tied) == (1, (1,))
    assert rank(["trusted"], [torch.ones(1)], [DEFAULT]).tied == (0,)


def test_answers_are_short_and_say_when_the_limit_is_close() -> None:
    """Ten words or so; the figures stand in the sentence after them."""
    none: dict[str, list[Flag]] = {sign.name: [] for sign in SIGNS}
    applied = torch.ones(200, dtype=torch.bool)

    def measured(incomplete: int, leaking: int) -> dict[str, torch.Tensor]:
        found = {name: torch.full((200,), value) for name, value in (("coverage", 1.0), ("spill", 0.0), ("leak", 0.0))}
        found["coverage"][:incomplete] = 0.5
        found["leak"][:leaking] = 0.5
        return found

    cases = [
        (judge(measured(0, 0), none, applied, DEFAULT), "trusted", False),
        (judge(measured(36, 0), none, applied, DEFAULT), "trusted", True),
        (judge(measured(44, 0), none, applied, DEFAULT), "untrusted", True),
        (judge(measured(80, 0), none, applied, DEFAULT), "untrusted", False),
        (judge(measured(0, 60), none, applied, DEFAULT), "untrusted", False),
        (judge({}, none, applied, DEFAULT), "unproven", False),
        (judge({}, none | {"target shows": [Flag(i, 1, "") for i in range(90)]}, applied, DEFAULT), "doubtful", False),
        (judge({}, none, ~applied, DEFAULT), "untrusted", False),
    ]
    for verdict, level, close in cases:
        assert verdict.level == level
        assert len(verdict.answer.split()) <= 12, verdict.answer
        assert ("measure more pairs" in verdict.sentence) == close, verdict.sentence
