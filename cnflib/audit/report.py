"""What an audit returns: findings, printed as a table, and an error that lists the faults."""

from typing import NamedTuple

__all__ = ["AuditError", "Finding", "Report"]


def __dir__() -> list[str]:
    return sorted(__all__)


class AuditError(AssertionError):
    """An audit found faults; the message lists them."""


class Finding(NamedTuple):
    """One check: what was measured, the largest error seen, the bound it must keep, and what a fault points to."""

    check: str
    error: float
    bound: float
    hint: str

    @property
    def passed(self) -> bool:
        return self.error <= self.bound


class Report(NamedTuple):
    """The findings of an audit; prints as a table, in a notebook too.

    Attributes:
        findings: One for each check.
        note: What to do next; the last line of the table.
    """

    findings: tuple[Finding, ...]
    note: str = ""

    @property
    def faults(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if not f.passed)

    def raise_for_faults(self) -> None:
        """Raise an :class:`AuditError` that lists every fault; do nothing where there is none."""
        if self.faults:
            raise AuditError(
                "\n".join(f"{f.check}: error {f.error:.2e} > {f.bound:.0e}. {f.hint}" for f in self.faults)
            )

    def __str__(self) -> str:
        width = max(len(f.check) for f in self.findings)
        lines = [f"{'check':<{width}}  {'error':>9}  {'bound':>9}"]
        lines += [
            f"{f.check:<{width}}  {f.error:9.2e}  {f.bound:9.2e}  {'ok' if f.passed else f.hint}"
            for f in self.findings
        ]
        return "\n".join([*lines, self.note] if self.note else lines)

    __repr__ = __str__
