"""Looking at what saliency and masks do: :func:`run_audit` writes a report, :func:`strip` draws one mix.

Importing this package imports nothing heavy: public names are resolved on first use (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgdmix_albu.lazy import lazy

if TYPE_CHECKING:
    from sgdmix_albu.audit.drift import run_drift
    from sgdmix_albu.audit.drift_result import DriftResult
    from sgdmix_albu.audit.panels import strip
    from sgdmix_albu.audit.result import AuditResult, VariantResult
    from sgdmix_albu.audit.run import run_audit

__all__ = ["AuditResult", "DriftResult", "VariantResult", "run_audit", "run_drift", "strip"]

__getattr__, __dir__ = lazy(
    __name__,
    {
        ".drift": ["run_drift"],
        ".drift_result": ["DriftResult"],
        ".panels": ["strip"],
        ".result": ["AuditResult", "VariantResult"],
        ".run": ["run_audit"],
    },
)
