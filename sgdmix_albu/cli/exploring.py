"""``sgdmix explore``, a page to look at one's images."""

from __future__ import annotations

from typing import Any

from sgdmix_albu.cli.grammar import Commands, add_classifier, add_data, add_settings, command, made, options_of
from sgdmix_albu.cli.said import Said
from sgdmix_albu.parsing import count, whole
from sgdmix_albu.settings import ClassifierSettings, RefinerSettings, SaliencySettings


def add_explore(commands: Commands) -> None:
    """``sgdmix explore``."""
    text = "look at your images in a local page: saliency, mask, target and mix under each setting"
    explore = command(commands, "explore", _run, text)
    add_data(explore)
    explore.add_argument("--size", type=count, default=224, metavar="N", help="resize all images to N x N pixels")
    explore.add_argument("--saliency", nargs="+", default=[], metavar="NAME", help="more backends to offer")
    add_settings(explore, SaliencySettings, only="options")
    page = explore.add_argument_group("page")
    page.add_argument(
        "--port", type=whole(1, 65535), metavar="N", help="port on 127.0.0.1 (default: the first free one from 7860)"
    )
    page.add_argument("--no-browser", dest="browser", action="store_false", help="open no browser; print the address")
    refine = explore.add_argument_group("refining (default: none)")
    refine.add_argument("--refiner", dest="name", default="none", metavar="KEY_OR_DIR", help="see: sgdmix refiners")
    add_settings(refine, RefinerSettings, only="base steps guidance device")
    add_classifier(explore)


def _run(*, options: list[str], saliency: list[str], port: int | None, browser: bool, **arguments: Any) -> Said:
    from sgdmix_albu.explore import Given, explore

    refiner, classifier = made(RefinerSettings, arguments), made(ClassifierSettings, arguments)
    given = Given(
        saliency=tuple(saliency),
        options=options_of(options) or {},
        classifier=classifier,
        refiner=refiner,
        **arguments,
    )
    explore(given, port=port, browser=browser)
    return Said([])
