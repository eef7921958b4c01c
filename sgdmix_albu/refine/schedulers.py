"""Which of diffusers' schedulers can take an image to an image."""

from __future__ import annotations

SCHEDULERS = (
    "CMStochasticIterativeScheduler",
    "CogVideoXDDIMScheduler",
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EDMDPMSolverMultistepScheduler",
    "EDMEulerScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)
"""Those that the stock image-to-image pipelines run with, and with the same result as ours (the tests compare them).

Left out: schedulers of flow matching, which Stable Diffusion is not trained for; inverse ones, which add noise; those
that cannot noise an image by a strength; and ``DPMSolverSDEScheduler``, whose noise cannot be seeded for each image.
"""
