"""WebDataset around SGDMix: what its page (docs/how-to/webdataset.md) says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import webdataset as wds

from sgdmix_albu import SGDMix

# The package leaves its shards to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

IMAGES, LABELS = torch.rand(16, 3, 24, 24, generator=torch.Generator().manual_seed(3)), torch.arange(16) % 4


@pytest.fixture
def shard(tmp_path: Path) -> str:
    with wds.TarWriter(str(tmp_path / "shard.tar")) as tar:
        for index, (image, label) in enumerate(zip(IMAGES, LABELS.tolist(), strict=True)):
            tar.write({"__key__": f"{index:04}", "pth": image, "cls": label})
    return str(tmp_path / "shard.tar")


@pytest.mark.parametrize("tuples", [True, False])
def test_a_stage_of_the_pipeline_mixes_batches(shard: str, tuples: bool) -> None:
    data = wds.WebDataset(shard, shardshuffle=False).decode()
    data = data.to_tuple("pth", "cls") if tuples else data
    mixed = data.batched(8).map(SGDMix())
    before, after = list(data.batched(8)), list(mixed)

    def parts(batches: list[Any], place: int, name: str) -> torch.Tensor:
        return torch.cat([torch.as_tensor(batch[place if tuples else name]) for batch in batches])

    assert [type(batch) for batch in before] == [type(batch) for batch in after]
    assert torch.equal(parts(before, 0, "pth"), IMAGES)
    assert (parts(after, 0, "pth") != IMAGES).flatten(1).any(1).sum() >= 12
    assert torch.equal(parts(after, 1, "cls"), LABELS)
    if not tuples:
        assert [key for batch in after for key in batch["__key__"]] == [f"{index:04}" for index in range(16)]
