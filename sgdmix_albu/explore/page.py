"""The page: gradio's controls around an explorer. It is served to this machine alone, and fetches nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, get_args

from sgdmix_albu.arguments import check_count
from sgdmix_albu.errors import InvalidInputError, SGDMixError
from sgdmix_albu.explore.explorer import Explorer
from sgdmix_albu.explore.shown import STYLE, shown, told
from sgdmix_albu.explore.wishes import Choices, Given
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.masks import list_masks
from sgdmix_albu.registry import import_optional
from sgdmix_albu.types import Fill, Place, Preserve

HOST = "127.0.0.1"
# A web site may have its name mean this machine, and then ask in a visitor's browser: such questions name the site.
_HOSTS = (HOST, "localhost", "::1")
_OFFERED = 200  # images in the list at once: a browser cannot hold a million
_NAMES = ("saliency", "mask", "fill", "place", "candidates", "seed", "strength", "preserve")


def explore(given: Given, *, port: int | None = None, browser: bool = True, progress: Progress | None = None) -> None:
    """Serve the page until Ctrl-C.

    Args:
        given: The data, and what does not change while the page is open.
        port: Where to listen on 127.0.0.1; None for the first free one from 7860 on.
        browser: Open it in a browser.
        progress: Where the page's address is told; None for the log.

    Raises:
        MissingExtraError: gradio is not installed.
        InvalidInputError: The port is taken or is no port; or what was given does not go together.
        DataError: There is no such folder, or no image in it.
    """
    page = open_page(given, port=port, browser=browser)
    (progress or Progress()).tell(f"page     {page.url}  (Ctrl-C ends it)")
    try:
        with suppress(KeyboardInterrupt):  # the way to end it
            while True:
                time.sleep(3600)
    finally:
        page.close()


@dataclass(frozen=True)
class Page:
    """A page that is being served."""

    url: str
    close: Callable[[], None]


def open_page(given: Given, *, port: int | None = None, browser: bool = False) -> Page:
    """Begin to serve the page; arguments and errors as of :func:`explore`."""
    if port is not None:
        check_count("port", port, "must be a port, 1 to 65535", most=65535)
    # Before gradio is imported, which reads it once.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    gradio = import_optional("gradio", extra="explore")
    hosts = import_optional("starlette.middleware.trustedhost", extra="explore").TrustedHostMiddleware
    middleware = import_optional("starlette.middleware", extra="explore").Middleware
    explorer = Explorer(given)
    blocks = _blocks(gradio, explorer)
    fonts = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
    with _reached_directly():
        try:
            _, url, _ = blocks.launch(
                server_name=HOST,
                server_port=port,
                inbrowser=browser,
                prevent_thread_lock=True,
                share=False,
                quiet=True,
                footer_links=[],
                ssr_mode=False,
                theme=gradio.themes.Base(font=fonts[0], font_mono=fonts[1]),
                css=STYLE,
                app_kwargs={"middleware": [middleware(hosts, allowed_hosts=list(_HOSTS), www_redirect=False)]},
            )
        except OSError as error:
            raise InvalidInputError(f"cannot listen on port {port} of {HOST}: {error}; pass another port") from error
    return Page(url, partial(blocks.close, verbose=False))


def _blocks(gradio: Any, explorer: Explorer) -> Any:
    given, first = explorer.given, Choices(saliency=explorer.given.backends[0])
    refines = given.refiner is not None
    with gradio.Blocks(title="sgdmix explore", analytics_enabled=False, fill_width=True) as blocks:
        with gradio.Row():
            with gradio.Column(scale=1, min_width=280):
                image = gradio.Dropdown(
                    list(islice(explorer.keys, _OFFERED)),
                    value=explorer.keys[0],
                    label=f"Image (of {len(explorer.keys)}; type a part of its name)",
                    allow_custom_value=True,
                    elem_id="image",
                )
                with gradio.Row():
                    before, after = (gradio.Button(name, size="sm", min_width=80) for name in ("Previous", "Next"))
                controls = {
                    "saliency": gradio.Radio(given.backends, value=first.saliency, label="Saliency"),
                    "mask": gradio.Radio(list_masks(), value=first.mask, label="Mask"),
                    "fill": gradio.Radio(get_args(Fill), value=first.fill, label="Fill"),
                    "place": gradio.Radio(get_args(Place), value=first.place, label="Place"),
                    "candidates": gradio.Slider(1, 200, value=first.candidates, step=1, label="Candidates (N)"),
                    "seed": gradio.Number(first.seed, precision=0, minimum=0, label="Seed of the candidates"),
                    "strength": gradio.Slider(
                        0.05, 1, value=first.strength, step=0.05, label="Strength", visible=refines
                    ),
                    "preserve": gradio.Radio(
                        get_args(Preserve), value=first.preserve, label="Protect the object", visible=refines
                    ),
                }
            with gradio.Column(scale=3):
                looks = gradio.HTML(elem_id="looks")
                plain = {"interactive": False, "wrap_lines": True, "lines": 1}
                python = gradio.Code(language="python", label="In a training script", elem_id="python", **plain)
                command = gradio.Code(language="shell", label="On the command line", elem_id="command", **plain)
        inputs, outputs = [image, *(controls[name] for name in _NAMES)], [looks, python, command]

        def show(text: str, *values: Any) -> tuple[Any, ...]:
            try:
                choices = Choices(**dict(zip(_NAMES, values, strict=True)))
                look = explorer.look(explorer.find(text), choices)
            except SGDMixError as error:
                return told(str(error)), "", ""
            return shown(look, explorer.unusable(choices)), look.python, look.command

        def beside(step: int) -> Callable[[str], str]:
            def move(text: str) -> str:
                try:
                    return explorer.beside(explorer.find(text), step)
                except SGDMixError:
                    return explorer.keys[0]

            return move

        how = {"inputs": inputs, "outputs": outputs, "concurrency_id": "look", "show_progress": "minimal"}
        before.click(beside(-1), image, image)
        after.click(beside(1), image, image)
        # A slider tells each step on its way, a release only where it came to rest.
        settled = [one.release if isinstance(one, gradio.Slider) else one.change for one in controls.values()]
        gradio.on([blocks.load, image.change, *settled], show, **how, trigger_mode="always_last")
    return blocks


class _reached_directly:  # noqa: N801  a context manager
    """This machine is reached without a proxy: gradio asks its own server whether it is up, as the environment says."""

    def __enter__(self) -> None:
        self._before = {name: os.environ.get(name) for name in ("no_proxy", "NO_PROXY")}
        for name, value in self._before.items():
            os.environ[name] = ",".join(filter(None, (value, HOST, "localhost")))

    def __exit__(self, *_: Any) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
