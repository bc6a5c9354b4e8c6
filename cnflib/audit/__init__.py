"""Checks that run on anyone's bijection or flow and say what is wrong.

They judge float64 copies, at perturbed weights too: a coupling whose net ends in zeros is the identity, and there a
dropped log-determinant is right and a net that learns looks like one that does not.
"""

from cnflib.audit.bijection import audit_bijection
from cnflib.audit.gradients import audit_gradients
from cnflib.audit.report import AuditError, Finding, Report

__all__ = ["AuditError", "Finding", "Report", "audit_bijection", "audit_gradients"]


def __dir__() -> list[str]:
    return sorted(__all__)
