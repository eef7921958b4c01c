"""datasets, transformers and accelerate around SGDMix: what their pages (docs/how-to/) say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import BatchFeature, Trainer, TrainingArguments, default_data_collator

from sgdmix_albu import SGDMix

IMAGES, LABELS = torch.rand(16, 3, 24, 24, generator=torch.Generator().manual_seed(3)), torch.arange(16) % 4


class Shown(nn.Module):
    """A classifier that keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = nn.Linear(3, 4), {True: [], False: []}

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        self.seen[self.training].append((pixel_values.clone(), labels))
        logits = self.layer(pixel_values.mean((2, 3)))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class MixingTrainer(Trainer):
    mix = SGDMix()

    def training_step(self, model, inputs, *args, **kwargs):
        return super().training_step(model, self.mix(self._prepare_inputs(inputs)), *args, **kwargs)


@pytest.fixture
def rows() -> Dataset:
    return Dataset.from_dict({"row": list(range(16)), "label": LABELS.tolist()})


def as_they_are(batch: dict) -> dict:
    return {"pixel_values": IMAGES[batch["row"]], "labels": batch["label"]}


def found(images: Tensor, labels: Tensor) -> tuple[int, bool]:
    """How many of these are images of the set, and whether none has a label that is not its own."""
    same = (images[:, None] == IMAGES[None]).flatten(2).all(2)
    return int(same.sum()), bool((~same | (labels[:, None] == LABELS[None])).all())


@pytest.mark.parametrize("where", ["transform", "step", "collator"])
def test_training_sees_mixed_images_and_evaluation_those_of_the_set(rows: Dataset, tmp_path: Path, where: str) -> None:
    mix = SGDMix()

    def mixed(batch: dict) -> dict:
        images, labels = mix(IMAGES[batch["row"]], torch.tensor(batch["label"]))
        return {"pixel_values": images, "labels": labels}

    def marked(batch: dict) -> dict:
        return {**as_they_are(batch), "train": [True] * len(batch["row"])}

    def collate(samples: list) -> dict:
        batch = default_data_collator(samples)
        return mix(batch) if batch.pop("train", None) is not None else batch

    kind, train, collator = {
        "transform": (Trainer, mixed, None),
        "step": (MixingTrainer, as_they_are, None),
        "collator": (Trainer, marked, collate),
    }[where]
    settings = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 8, "max_steps": 2, "use_cpu": True}
    quiet = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "remove_unused_columns": False}
    model = Shown()
    trainer = kind(
        model=model,
        args=TrainingArguments(str(tmp_path), **settings, **quiet),
        train_dataset=rows.with_transform(train),
        eval_dataset=rows.with_transform(as_they_are),
        data_collator=collator,
    )
    trainer.train()
    trainer.evaluate()
    seen = {mode: [torch.cat(parts) for parts in zip(*shown, strict=True)] for mode, shown in model.seen.items()}
    assert found(*seen[False]) == (16, True)
    count, _ = found(*seen[True])
    assert count <= 2  # an image without a partner stays
    assert sorted(seen[True][1].tolist()) == sorted(LABELS.tolist())
    assert seen[True][1].dtype == torch.int64


def test_a_transform_gets_the_whole_batch_of_a_loader(rows: Dataset) -> None:
    sizes = []
    list(DataLoader(rows.with_transform(lambda batch: sizes.append(len(batch["row"])) or as_they_are(batch)), 8))
    assert sizes == [8, 8]


def test_a_batch_of_an_image_processor_comes_back_as_one() -> None:
    batch = BatchFeature({"pixel_values": IMAGES[:8], "labels": LABELS[:8]})
    torch.manual_seed(1)
    mixed = SGDMix()(batch)
    torch.manual_seed(1)
    expected, _ = SGDMix()(IMAGES[:8], LABELS[:8])
    assert type(mixed) is BatchFeature
    assert torch.equal(mixed.pixel_values, expected)
    assert mixed.labels is batch.labels
    assert torch.equal(batch.pixel_values, IMAGES[:8])


def test_a_prepared_loader_keeps_a_collate_function_that_mixes() -> None:
    def collate(samples: list) -> list[Tensor]:
        return list(SGDMix()(*torch.utils.data.default_collate(samples)))

    loader = Accelerator(cpu=True).prepare(DataLoader(TensorDataset(IMAGES, LABELS), 8, collate_fn=collate))
    batches = [torch.cat(parts) for parts in zip(*loader, strict=True)]
    assert found(*batches)[0] <= 2
    assert torch.equal(batches[1], LABELS)
