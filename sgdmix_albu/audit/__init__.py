"""Looking at what saliency and masks do: :func:`run_audit` writes a report, :func:`strip` draws one mix.

Importing this package imports nothing heavy: public names are resolved on first use (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgdmix_albu.audit.drift import run_drift
    from sgdmix_albu.audit.drift_result import DriftResult
    from sgdmix_albu.audit.panels import strip
    from sgdmix_albu.audit.result import AuditResult, VariantResult
    from sgdmix_albu.audit.run import run_audit

__all__ = ["AuditResult", "DriftResult", "VariantResult", "run_audit", "run_drift", "strip"]

_HOMES = {
    "AuditResult": "sgdmix_albu.audit.result",
    "DriftResult": "sgdmix_albu.audit.drift_result",
    "VariantResult": "sgdmix_albu.audit.result",
    "run_audit": "sgdmix_albu.audit.run",
    "run_drift": "sgdmix_albu.audit.drift",
    "strip": "sgdmix_albu.audit.panels",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
