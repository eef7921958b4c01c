"""What makes the learned saliency faster on a CPU, and what that costs its masks.

    OMP_NUM_THREADS=1 python -m benchmarks.saliency_speed DATA [--write docs/speed.md] [--count 200] [--rounds 12]

DATA holds photographs with true masks, ``images/`` and ``masks/`` of the same stems. The network of ``salient_object``
runs in each way on the same photographs, squashed before; the ways take turns, on one thread. IoU is that of ``guided``
masks of their maps. Seconds until it runs are those of compiling or quantizing, with the caches that there are.
Eight-bit whole numbers need torchao, which is no dependency of ours; the way is passed over where it is not there.
``--write`` puts the table between the markers ``saliency`` of a page.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.masks_ladder import load
from benchmarks.speed.about import about, machine
from benchmarks.speed.measure import Row, timed
from benchmarks.speed.table import grid, number, write_between
from sgdmix_albu.masks import get_mask
from sgdmix_albu.saliency import get_backend, network, normalize_maps
from sgdmix_albu.saliency.network import SIDE
from sgdmix_albu.saliency.squashing import squashed

Forward = Callable[[Tensor], Tensor]
_PASS = 12


@dataclass(frozen=True)
class Way:
    """How the network is run: (B, 3, side, side) floats to (B, side/2, side/2) logits, ``batch`` images at a time."""

    name: str
    forward: Forward
    batch: int = _PASS
    side: int = SIDE
    seconds: float | None = None  # until it runs

    def maps(self, images: Tensor) -> Tensor:
        """Logits of images that are squashed already; a last pass that is too small is filled up."""
        found = []
        with torch.no_grad():
            for part in images.split(self.batch):
                full = torch.cat([part, part[:1].expand(self.batch - len(part), -1, -1, -1)])
                full = full.contiguous(memory_format=torch.channels_last)
                found.append(self.forward(full)[: len(part)].float())
        return torch.cat(found)


def fresh() -> nn.Module:
    """The network on board."""
    return get_backend("salient_object").network  # type: ignore[attr-defined,no-any-return]


@contextmanager
def apart() -> Iterator[None]:
    """Convolution and ReLU6 as two, as torch runs them by itself."""
    fused, network.FUSED = network.FUSED, None
    try:
        yield
    finally:
        network.FUSED = fused


def made(name: str, make: Callable[[], Forward], example: Tensor) -> Way:
    """A way that has to be compiled first."""
    start = time.perf_counter()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        forward = make()
        forward(example)
    return Way(name, forward, seconds=time.perf_counter() - start)


def eager(context: Callable[[], object]) -> Forward:
    """The network inside a context."""
    module = fresh()

    def forward(images: Tensor) -> Tensor:
        with context():  # type: ignore[attr-defined]
            return module(images)  # type: ignore[no-any-return]

    return forward


def bfloat16() -> Forward:
    """The weights in half precision as well."""
    module = fresh().to(torch.bfloat16)
    return lambda images: module(images.to(torch.bfloat16))


def by_rows() -> Forward:
    """Channels first, weights too."""
    module = fresh().to(memory_format=torch.contiguous_format)
    return lambda images: module(images.contiguous())


def compiled() -> Forward:
    """By inductor, which fuses by itself."""
    with apart():
        module = torch.compile(fresh())
        module(torch.rand(_PASS, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last))
    return module


def scripted(example: Tensor) -> Forward:
    """By TorchScript, frozen; torch gives it up."""
    with apart():
        return torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(fresh(), example)))  # type: ignore[no-any-return,no-untyped-call]


def whole_numbers(example: Tensor) -> Forward:
    """Weights and activations at 8 bits (torchao's PT2E with the quantizer for x86), compiled by inductor."""
    import torch._inductor.config as inductor
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    with apart():
        prepared = prepare_pt2e(torch.export.export(fresh(), (example,)).module(), quantizer)
    prepared(example)  # the ranges of a dozen photographs
    converted = convert_pt2e(prepared)
    move_exported_model_to_eval(converted)
    inductor.freezing = True
    module = torch.compile(converted)
    module(example)
    inductor.freezing = False
    return module  # type: ignore[no-any-return]


def ways(example: Tensor, *, quick: bool) -> Iterator[Way]:
    """All of them; without those that are compiled if ``quick``."""
    yield Way("as it is, 12 images at a time", eager(nullcontext))
    for batch in (1, 8, 16, 64):
        yield Way(f"{batch} at a time", eager(nullcontext), batch)
    yield Way("convolution and ReLU6 apart", eager(apart))
    yield Way("channels first", by_rows())
    yield Way("bfloat16, by autocast", eager(lambda: torch.autocast("cpu", torch.bfloat16)))
    yield Way("bfloat16, weights too", bfloat16())
    yield Way("at 128 pixels a side", eager(nullcontext), side=128)
    if not quick:
        yield made("`torch.jit`, frozen", lambda: scripted(example), example)
        yield made("`torch.compile`", compiled, example)
        try:
            yield made("int8, by torchao and `torch.compile`", lambda: whole_numbers(example), example)
        except ImportError as error:
            print(f"int8 is left out: {error}")


def resizes(images: Tensor) -> list[Row]:
    """What squashing costs, of bytes as it is done and of floats."""
    floats = {"size": (SIDE, SIDE), "mode": "bilinear", "antialias": True}
    return [
        Row("squashing bytes (as it is)", lambda: squashed(images, SIDE)),
        Row("squashing floats", lambda: F.interpolate(images / 255, **floats)),  # type: ignore[arg-type]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--quick", action="store_true", help="without what has to be compiled")
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)

    photographs, truth = (part[: options.count] for part in load(options.data, 224))
    small = {side: squashed(photographs, side) / 255 for side in (SIDE, 128)}
    found = list(ways(small[SIDE][:_PASS].contiguous(memory_format=torch.channels_last), quick=options.quick))
    guided = get_mask("guided")
    overlap = []
    for way in found:
        maps = normalize_maps(way.maps(small[way.side]).sigmoid())
        masks = torch.cat(
            [guided(*part).masks for part in zip(maps.split(_PASS), photographs.split(_PASS), strict=True)]
        )
        overlap.append(((masks & truth).flatten(1).sum(1) / (masks | truth).flatten(1).sum(1)).mean())
    # Two dozen images each, but what takes 64 at a time.
    counts = [max(2 * _PASS, way.batch) for way in found]
    rows = [
        Row(way.name, lambda way=way, n=n: way.maps(_first(small[way.side], n)))
        for way, n in zip(found, counts, strict=True)
    ]
    rows += resizes(photographs[: 2 * _PASS])
    times = timed(rows, rounds=options.rounds, seconds=240)
    each = [time["cpu_ms"]["median"] / n for time, n in zip(times, [*counts, 24, 24], strict=True)]
    lines = [
        [way.name, number(ms), f"{ms / each[0]:.2f}", "" if way.seconds is None else f"{way.seconds:.0f}", f"{iou:.4f}"]
        for way, ms, iou in zip(found, each, overlap, strict=False)
    ]
    lines += [
        [row.name, number(ms), f"{ms / each[0]:.2f}", "", ""] for row, ms in zip(rows[-2:], each[-2:], strict=True)
    ]
    head = ["the network alone", "CPU ms an image", "x as it is", "seconds until it runs", "IoU of `guided` masks"]
    text = f"{machine(about(True, len(photographs), 224))}\n\n{grid(head, lines)}"
    print(text)
    if options.write:
        write_between(options.write, "saliency", text)


def _first(images: Tensor, count: int) -> Tensor:
    """As many images, again from the beginning where there are too few."""
    return images[torch.arange(count) % len(images)]


if __name__ == "__main__":
    main()
