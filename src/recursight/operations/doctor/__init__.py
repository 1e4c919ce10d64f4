"""`recursight doctor`: lists problems and the commands that fix them."""

from recursight.operations.doctor.examination import examine
from recursight.operations.doctor.finding import Finding
from recursight.operations.doctor.leftovers import clear

__all__ = ["Finding", "clear", "examine"]
