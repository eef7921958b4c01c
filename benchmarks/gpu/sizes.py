"""How much is measured: all of it, in less than eight minutes of one GPU, or a rehearsal for a CPU."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """The numbers of a run.

    Attributes:
        batches: Batch sizes of mixing.
        pixels: Side of what is mixed.
        gradcam: Images that Grad-CAM looks at.
        rounds: Calls of each row of a table.
        stock: Images that the stock loop refines, one by one.
        ours: Images that ours refines.
        refined: Side of what is refined.
        steps: Denoising steps of strength 1.
        big: Whether the UNet is of Stable Diffusion 1.5's size; else the embedded base's.
        strict: Images of the comparison with the CPU.
        seconds: What each part may take before it is ended.
    """

    batches: tuple[int, ...]
    pixels: int
    gradcam: int
    rounds: int
    stock: int
    ours: int
    refined: int
    steps: int
    big: bool
    strict: int
    seconds: dict[str, float]


SIZES = {
    "full": Size(
        batches=(64, 256), pixels=224, gradcam=64, rounds=20, stock=8, ours=32, refined=512, steps=25, big=True,
        strict=8,
        seconds={"machine": 40, "contracts": 90, "strict": 45, "mixing": 80, "gradcam": 35, "refining": 180},
    ),
    "toy": Size(
        batches=(4,), pixels=48, gradcam=1, rounds=1, stock=1, ours=2, refined=64, steps=4, big=False, strict=2,
        seconds=dict.fromkeys(("machine", "contracts", "strict", "mixing", "gradcam", "refining"), 300),
    ),
}  # fmt: skip
