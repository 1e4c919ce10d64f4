"""`recursight doctor`: what is wrong here, and the command that fixes it."""

from recursight.operations.doctor.examination import examine
from recursight.operations.doctor.finding import Finding
from recursight.operations.doctor.leftovers import clear

__all__ = ["Finding", "clear", "examine"]
