"""Against an S3-compatible server on this machine, with and without faults between the two."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from expand_helpers import REAL, Stop, expand
from faulty import Fault, FaultyProxy

from sgdmix_albu.errors import DataError
from sgdmix_albu.expand import verify
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.io.storage import Storage

pytest.importorskip("s3fs")
# Warnings of the server and of the client's own session, which closes when the interpreter ends.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

SHARDS = replace(REAL, shards=True, multiplier=4)
QUIET = Progress(quiet=True)
_buckets = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """Its port."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture
def proxy(server: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """Between the client and the server; a client that does not wait for long and asks once: patience is ours."""
    from s3fs import S3FileSystem

    proxy = FaultyProxy(server)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.server_port}", "no_proxy": "127.0.0.1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    once = {"retries": {"max_attempts": 0}, "read_timeout": 0.5, "connect_timeout": 0.5}
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": once})
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    monkeypatch.setattr("sgdmix_albu.io.remote._WAITS", (0.0, 0.0, 0.01))
    S3FileSystem.clear_instance_cache()
    yield proxy
    proxy.end()
    S3FileSystem.clear_instance_cache()


@pytest.fixture
def bucket(proxy: FaultyProxy, photographs: Path) -> str:
    """One of its own, with photographs in it."""
    name = f"bucket-{next(_buckets)}"
    store: Any = fsspec.filesystem("s3")
    store.mkdir(name)
    for path in sorted(photographs.rglob("*.png")):
        store.pipe_file(f"{name}/photos/{path.relative_to(photographs).as_posix()}", path.read_bytes())
    proxy.seen.clear()
    return f"s3://{name}"


def stored(url: str) -> dict[str, bytes]:
    """Every object but the settings, which hold nothing of a place either, but are told of first."""
    store = Storage(url)
    return {name: store.read(name) for name in store.sizes()}


def local(photographs: Path, out: Path, settings: Any = REAL, **options: Any) -> dict[str, bytes]:
    """What the same run writes on this machine."""
    expand(photographs, out, settings, **options)
    return {name: content for name, content in stored(str(out)).items() if name != ".sgdmix-lock"}


@pytest.mark.parametrize("settings", [REAL, SHARDS], ids=["files", "shards"])
def test_the_same_as_on_this_machine(settings: Any, bucket: str, photographs: Path, tmp_path: Path) -> None:
    done = expand(f"{bucket}/photos", f"{bucket}/out", settings)
    assert done.written == done.planned == 12 * settings.multiplier
    assert verify(f"{bucket}/out", progress=QUIET).good
    assert stored(f"{bucket}/out") == local(photographs, tmp_path / "out", settings)


def test_a_source_is_fetched_once_by_a_worker_and_not_for_each_output(bucket: str, proxy: FaultyProxy) -> None:
    expand(f"{bucket}/photos", f"{bucket}/out", SHARDS, workers=1)
    fetched = {path: times for (method, path), times in proxy.seen.items() if method == "GET" and "/photos/" in path}
    assert len(fetched) == 12
    assert set(fetched.values()) == {2}  # for its mask, and for all of its outputs: 4 as a source, others as a target


def test_of_a_shard_no_more_is_fetched_than_what_is_looked_at(
    bucket: str, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sgdmix_albu.io.remote._BLOCK", 1024)
    Storage(bucket).write("shard-000000.tar", bytes(range(256)) * 4096)  # a megabyte
    before = proxy.sent
    with Storage(bucket).opened("shard-000000.tar") as file:
        file.seek(700_000)
        assert file.read(3) == (bytes(range(256)) * 4096)[700_000:700_003]
    assert Storage(bucket).read("shard-000000.tar", 5, 9) == bytes([5, 6, 7, 8])
    assert proxy.sent - before < 4096
    assert proxy.ranges[-1][1] == "bytes=5-8"


def now_and_then(rng: random.Random) -> Fault:
    """A fifth of the requests meets one."""
    return rng.choice(["503", "cut"]) if rng.random() < 0.2 else None


def silent_at_times(rng: random.Random) -> Fault:
    """Each costs the client the time that it waits."""
    return "silence" if rng.random() < 0.008 else None


@pytest.mark.parametrize(
    ("settings", "fault"),
    [(REAL, now_and_then), (SHARDS, now_and_then), (REAL, silent_at_times)],
    ids=["files", "shards", "silence"],
)
def test_nothing_is_lost_and_nothing_is_doubled(
    settings: Any, fault: Callable[[random.Random], Fault], bucket: str, photographs: Path, tmp_path: Path,
    proxy: FaultyProxy,
) -> None:  # fmt: skip
    """The run goes through, or says why, and the same call goes on."""
    rng = random.Random(1)
    expected = local(photographs, tmp_path / "out", settings, limit=6)
    proxy.fault = lambda *_: fault(rng)
    for _ in range(20):
        try:
            if not expand(f"{bucket}/photos", f"{bucket}/out", settings, limit=6).lost:
                break
        except DataError:
            continue
    proxy.fault = lambda *_: None
    assert proxy.faults.total() - proxy.faults["none"] >= 2
    assert stored(f"{bucket}/out") == expected
    assert verify(f"{bucket}/out", progress=QUIET).good


def test_stopped_and_given_again(
    bucket: str, photographs: Path, tmp_path: Path, small_chunks: None, proxy: FaultyProxy
) -> None:
    stops = 0
    for after in range(2, 30, 3):
        try:
            expand(f"{bucket}/photos", f"{bucket}/out", REAL, workers=1, progress=Stop(after))
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops
    assert stored(f"{bucket}/out") == local(photographs, tmp_path / "out")
    proxy.seen.clear()
    assert expand(f"{bucket}/photos", f"{bucket}/out", REAL).written == 0
    # A finished run is told by its list of objects: of images only those sixteen of the set that tell it from others.
    assert sum(path.endswith(".png") for method, path in proxy.seen if method == "GET") <= 16


def test_a_store_that_never_answers_is_one_line(bucket: str, proxy: FaultyProxy) -> None:
    proxy.fault = lambda *_: "503"
    with pytest.raises(DataError, match=f"^cannot read {bucket}/a: "):
        Storage(bucket).read("a")
    assert proxy.faults["503"] == 4  # tries


def test_what_is_not_there_is_asked_for_once(bucket: str, proxy: FaultyProxy) -> None:
    proxy.seen.clear()
    with pytest.raises(DataError):
        Storage(bucket).read("nothing")
    assert not Storage(bucket).has("nothing")
    assert sum(times for (_, path), times in proxy.seen.items() if path.endswith("nothing")) == 2
