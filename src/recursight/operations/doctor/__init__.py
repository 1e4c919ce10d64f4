"""`recursight doctor`: what is wrong here, and the command that mends it."""

from recursight.operations.doctor.dead import clear
from recursight.operations.doctor.examination import examine
from recursight.operations.doctor.finding import Finding

__all__ = ["Finding", "clear", "examine"]
