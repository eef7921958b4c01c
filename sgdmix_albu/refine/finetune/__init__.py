"""Fine-tuning a refiner: Textual Inversion and LoRA together, everything else frozen."""

from sgdmix_albu.refine.finetune.run import finetune

__all__ = ["finetune"]
