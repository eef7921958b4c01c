"""Draw the pictures of the documentation with the package itself: ``python docs/make_pictures.py [NAME...]``.

Writes into docs/assets. The same seed gives the same pictures. The photographs come from scikit-image and scikit-learn
(``pip install scikit-learn``); docs/credits.md names their authors and licences.
"""

from __future__ import annotations

import io
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from contextlib import chdir
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from skimage import data

from sgdmix_albu import mix_batch
from sgdmix_albu.audit import run_drift, strip
from sgdmix_albu.datasets.aviary import Aviary
from sgdmix_albu.refine import finetune
from sgdmix_albu.saliency import get_backend
from sgdmix_albu.types import BEST_MASK, BEST_SALIENCY, MixedBatch

ASSETS = Path(__file__).resolve().parent / "assets"
SIZE = 320
BIRD = 256
SHOWN = 170
LIMIT = 300_000  # bytes a picture may have in the repository
GAP = 6
TRANSPARENT = 255


# What happens in each package, for the picture of the architecture.
PACKAGES = {
    "cli": "the command sgdmix",
    "demo": "the whole method at once",
    "explore": "one image, every setting",
    "hub": "refiners and sets, shared",
    "recipes": "the four tasks, to train on",
    "synthetic": "training on the result",
    "distillation": "a small network of your own",
    "audit": "reports on masks and drift",
    "expand": "6: plan, execute, store",
    "torchvision": "transform of batches",
    "albumentations": "transform of samples",
    "refine": "5: diffusion",
    "bank": "stored maps and masks",
    "saliency": "1: where the object is",
    "datasets": "labelled images, listed",
    "classifiers": "weights, judge",
    "pretrained": "networks in folders",
    "masks": "mask presets, public",
    "mixing": "2 to 4: target, mask, mix",
    "io": "files, images, threads",
}


def architecture() -> None:
    """Draw the packages, the topmost first: one row for each layer of the import rules."""
    with (ASSETS.parents[1] / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["name"].startswith("Rooms"))
    rows = [[name for name in re.split(r" [|:] ", layer) if name in PACKAGES] for layer in layers]
    rows = [row for row in rows if row]
    others = [name for layer in layers for name in re.split(r" [|:] ", layer) if name not in {*PACKAGES, "__main__"}]
    width, height, gap = 760, 46, 8
    parts = []
    for place, row in enumerate([*rows, [", ".join(others)]]):
        wide = (width - gap * (len(row) - 1)) / len(row)
        for column, name in enumerate(row):
            x, y = column * (wide + gap), place * (height + gap)
            parts.append(f'<rect x="{x:.0f}" y="{y}" width="{wide:.0f}" height="{height}" rx="6"/>')
            middle = f'x="{x + wide / 2:.0f}" text-anchor="middle"'
            parts.append(f'<text {middle} y="{y + 20}" class="name">{name}</text>')
            parts.append(f'<text {middle} y="{y + 37}">{PACKAGES.get(name, "files that all packages use")}</text>')
    total = (len(rows) + 1) * (height + gap) - gap
    title = 'role="img" aria-label="The packages, topmost first"'
    opening = f'<svg class="architecture" viewBox="0 0 {width} {total}" {title}>'
    (ASSETS / "architecture.svg").write_text("\n".join([opening, *parts, "</svg>"]) + "\n")


def home() -> None:
    """Draw the home page's picture: four photographs, and below them what ``SGDMix()`` makes of the four."""
    images, _, mixed = four()
    gap = 12
    sheet = Image.new("RGBA", (4 * SIZE + 3 * gap, 2 * SIZE + gap))
    for row, pictures in enumerate((images, mixed.images)):
        for column, picture in enumerate(pictures):
            shown = Image.fromarray(picture.movedim(0, -1).numpy())
            sheet.paste(shown, (column * (SIZE + gap), row * (SIZE + gap)))
    save_photographs(sheet, ASSETS / "home.webp")


def steps() -> None:
    """Draw the steps of the method on the four photographs, a row each."""
    images, maps, mixed = four()
    save_photographs(strips(images, maps, mixed, range(len(images))), ASSETS / "steps.webp")


def strips(images: torch.Tensor, maps: torch.Tensor, mixed: MixedBatch, rows: Sequence[int]) -> Image.Image:
    """The steps of some rows, one below the other; the last has the titles."""
    plan = mixed.plan
    return stacked(
        [
            strip(
                images[row],
                maps[row],
                images[int(plan.target[row])],
                plan.masks[row],
                mixed.images[row],
                side=SHOWN,
                titles=row == rows[-1],
            )
            for row in rows
        ]
    )


def four() -> tuple[torch.Tensor, torch.Tensor, MixedBatch]:
    """Four photographs (4, 3, SIZE, SIZE) uint8, their saliency, and the mix of them by the defaults."""
    learn = files("sklearn") / "datasets" / "images"
    with Image.open(str(learn / "flower.jpg")) as flower, Image.open(str(learn / "china.jpg")) as temple:
        pictures = [
            squared(flower.convert("RGB"), 0.45),
            squared(temple.convert("RGB")),
            squared(Image.fromarray(data.coffee())),
            squared(Image.fromarray(data.rocket())),
        ]
    images = torch.stack(pictures)
    maps = get_backend(BEST_SALIENCY)(images)
    return images, maps, mix_batch(images, maps, mask=BEST_MASK)


def squared(photograph: Image.Image, middle: float = 0.5) -> torch.Tensor:
    """The largest square of a photograph as (3, SIZE, SIZE) uint8; ``middle`` places it from left (0) to right (1)."""
    square = ImageOps.fit(photograph, (SIZE, SIZE), Image.Resampling.LANCZOS, centering=(middle, 0.5))
    return torch.from_numpy(np.array(square)).movedim(-1, 0)


def drift() -> None:
    """Draw the grids of the drift page: a refiner fine-tuned in about a minute, its first four sources."""
    with tempfile.TemporaryDirectory() as folder:
        finetune(Aviary(per_species=40), key="aviary", out=f"{folder}/refiner")
        result = run_drift(
            dataset="aviary",
            refiner=f"{folder}/refiner",
            strengths=(0.3, 0.5, 0.7, 0.9),
            preserve=("none", "strict"),
            sources=24,
            out=f"{folder}/drift",
        )
        for mode in result.modes:
            with Image.open(result.folder / f"grid-{mode}.png") as grid:
                shown = grid.crop((0, 0, grid.width, 34 + 4 * 154)).convert("RGBA")
            save(shown, ASSETS / f"drift-{mode}.png")


def birds() -> None:
    """Draw the strip of the tutorial."""
    birds = Aviary("train", species=12, per_species=5, size=BIRD)
    images = torch.stack([torch.from_numpy(birds.render(i).image).permute(2, 0, 1) for i in range(len(birds))])
    maps = get_backend(BEST_SALIENCY)(images)
    mixed = mix_batch(
        images,
        maps,
        mask=BEST_MASK,
        labels=torch.tensor(birds.targets),
        target_class="different",
        generator=torch.Generator().manual_seed(0),
    )
    # One bird of each of four families, the first that was mixed: not chosen by how well it came out.
    rows = [
        next(row for row in range(len(birds)) if mixed.plan.applied[row] and birds.targets[row] == label)
        for label in (0, 4, 7, 9)
    ]
    save(strips(images, maps, mixed, rows), ASSETS / "strip.png")


def explore() -> None:
    """Draw the page of ``sgdmix explore``; needs Chromium, and what ``make test-explore`` installs."""
    from playwright.sync_api import sync_playwright

    from sgdmix_albu.explore import Given
    from sgdmix_albu.explore.page import open_page

    shots = {"cat/chelsea": data.chelsea, "drink/coffee": data.coffee, "person/astronaut": data.astronaut}
    with tempfile.TemporaryDirectory() as folder, chdir(folder), sync_playwright() as driver:
        for name, photograph in {**shots, "rocket/rocket": data.rocket}.items():
            path = Path("photos", f"{name}.jpg")  # as the command on the page names them
            path.parent.mkdir(parents=True)
            Image.fromarray(photograph()).save(path)
        page = open_page(Given(data="photos"))
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1200, "height": 700})
        tab.goto(page.url)
        tab.get_by_role("button", name="Next").click()
        tab.get_by_text("drink/coffee.jpg").wait_for()
        tab.wait_for_timeout(1000)
        shot = Image.open(io.BytesIO(tab.screenshot(full_page=True))).convert("RGB")
        browser.close()
        page.close()
    save_photographs(shot, ASSETS / "explore.webp")


def stacked(pictures: list[Image.Image]) -> Image.Image:
    """Pictures below each other, transparent between them."""
    sheet = Image.new("RGBA", (pictures[0].width, sum(one.height + GAP for one in pictures) - GAP))
    top = 0
    for one in pictures:
        sheet.paste(one, (0, top))
        top += one.height + GAP
    return sheet


def save(picture: Image.Image, path: Path) -> None:
    """Save with 255 colours, dithered, and one for transparency: a quarter of the size, and hardly a difference."""
    full = picture.convert("RGB")
    chosen = full.quantize(TRANSPARENT, Image.Quantize.MAXCOVERAGE, kmeans=3)
    colours = full.quantize(palette=chosen, dither=Image.Dither.FLOYDSTEINBERG)
    palette = colours.getpalette()
    pixels = np.asarray(colours).copy()
    pixels[np.asarray(picture)[:, :, 3] < 128] = TRANSPARENT
    reduced = Image.fromarray(pixels)
    reduced.putpalette([*palette[: 3 * TRANSPARENT], 128, 128, 128])
    encoded = io.BytesIO()
    reduced.save(encoded, "PNG", optimize=True, transparency=TRANSPARENT)
    write(encoded, path)


def save_photographs(picture: Image.Image, path: Path) -> None:
    """Save with all colours and with transparency."""
    encoded = io.BytesIO()
    picture.save(encoded, "WEBP", quality=86, method=6)
    write(encoded, path)


def write(encoded: io.BytesIO, path: Path) -> None:
    """Write a picture that is not too large for the repository."""
    size = encoded.tell()
    if size > LIMIT:
        raise SystemExit(f"{path} would have {size} bytes, more than {LIMIT}")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(encoded.getvalue())
    print(f"{path.relative_to(ASSETS.parents[1])}: {size // 1000} kB")


PICTURES = {one.__name__: one for one in (architecture, home, steps, birds, drift, explore)}

if __name__ == "__main__":
    for name in sys.argv[1:] or PICTURES:
        PICTURES[name]()
