"""Masks of the best segmenter at hand, U2-Net: the truth of the shifted test sets, and the upper bound's masks.

    OMP_NUM_THREADS=1 python -m benchmarks.accuracy.segment DATA u2net.onnx OUT

DATA is a tree of class folders; OUT gets, under the same names, what U2-Net sees in each photograph, 8 bits and of the
photograph's size. Needs onnxruntime. Maps that are there are not made again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

_SIDE = 320  # what U2-Net was trained at
_MEAN, _DEVIATION = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def main() -> None:
    import onnxruntime

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("network", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    session = onnxruntime.InferenceSession(options.network, settings, providers=["CPUExecutionProvider"])
    for path in sorted(options.data.rglob("*.jpg")):
        out = options.out / path.relative_to(options.data).with_suffix(".png")
        if not out.exists():
            out.parent.mkdir(parents=True, exist_ok=True)
            partial = out.with_suffix(".partial")
            _seen(session, Image.open(path).convert("RGB")).save(partial, format="png")
            partial.rename(out)


def _seen(session: "onnxruntime.InferenceSession", image: Image.Image) -> Image.Image:  # noqa: F821, UP037
    """The network's first output, stretched to 0..255 as its authors do."""
    pixels = np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), dtype=np.float32)
    pixels = (pixels / pixels.max() - _MEAN) / _DEVIATION
    found = session.run(None, {session.get_inputs()[0].name: pixels.transpose(2, 0, 1)[None].astype(np.float32)})[0]
    found = (found[0, 0] - found.min()) / (found.max() - found.min())
    return Image.fromarray((found * 255).astype(np.uint8)).resize(image.size, Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
