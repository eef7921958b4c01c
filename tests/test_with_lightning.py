"""Lightning around SGDMix: what its page (docs/how-to/lightning.md) says."""

from __future__ import annotations

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from sgdmix_albu import SGDMix

IMAGES, LABELS = torch.rand(16, 3, 24, 24, generator=torch.Generator().manual_seed(3)), torch.arange(16) % 4


class Shown(lightning.LightningModule):
    """A classifier that keeps what each of its steps was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = nn.Linear(3, 4), {}
        self.mix = SGDMix("gradcam", model=nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))

    def on_after_batch_transfer(self, batch: list[Tensor], dataloader_idx: int) -> list[Tensor]:
        return self.mix(batch) if self.trainer.training else batch

    def _step(self, stage: str, batch: list[Tensor]) -> Tensor:
        assert type(batch) is list
        self.seen.setdefault(stage, []).append(batch)
        return nn.functional.cross_entropy(self.layer(batch[0].mean((2, 3))), batch[1])

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self._step("train", batch)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self._step("check" if self.trainer.sanity_checking else "val", batch)

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self._step("test", batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def test_training_sees_mixed_images_and_nothing_else_does() -> None:
    loader = DataLoader(TensorDataset(IMAGES, LABELS), 8)
    module = Shown()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "log_every_n_steps": 1}
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet)
    trainer.fit(module, loader, loader)
    trainer.test(module, loader, verbose=False)
    seen = {stage: [torch.cat(parts) for parts in zip(*batches, strict=True)] for stage, batches in module.seen.items()}
    assert set(seen) == {"train", "check", "val", "test"}
    for stage, (images, labels) in seen.items():
        mixed = (images != IMAGES).flatten(1).any(1).sum()
        assert mixed >= 12 if stage == "train" else mixed == 0
        assert torch.equal(labels, LABELS)
    assert set(module.state_dict()) == {"layer.weight", "layer.bias"}
