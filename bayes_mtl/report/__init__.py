"""One self-contained page that a colleague can read."""

from bayes_mtl.report.page import report

__all__ = ["report"]
