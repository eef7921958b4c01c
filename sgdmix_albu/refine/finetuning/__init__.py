"""Fine-tuning a refiner: Textual Inversion and LoRA together, everything else frozen."""

from sgdmix_albu.refine.finetuning.run import finetune

__all__ = ["finetune"]
