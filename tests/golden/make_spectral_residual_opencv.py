"""Write spectral_residual_opencv.npz: small photographs and OpenCV-contrib's spectral residual of them.

The photographs are scikit-image's own. Run it where opencv-contrib-python-headless and scikit-image are
installed (not in the project's own environment, whose opencv has no saliency module)::

    python tests/golden/make_spectral_residual_opencv.py
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from skimage import data

SIZE = 128


def main() -> None:
    photographs = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    images = np.stack([cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for image in photographs])
    method = cv2.saliency.StaticSaliencySpectralResidual_create()
    maps = []
    for image in images:
        done, saliency = method.computeSaliency(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        assert done
        maps.append(cv2.resize(saliency, (64, 64), interpolation=cv2.INTER_AREA))
    target = Path(__file__).with_name("spectral_residual_opencv.npz")
    np.savez_compressed(target, images=images, maps=(np.stack(maps) * 255).round().astype(np.uint8))


if __name__ == "__main__":
    main()
