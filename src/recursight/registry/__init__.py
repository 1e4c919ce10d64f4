"""The model registry: versions of winners, and which of them is in production.

A version carries one of two aliases: `champion`, the version in production, or `challenger`, the current winner while
it is not the champion. `promote` decides between them; every decision is recorded.
"""

from recursight.registry.decisions import Decision, history, settle
from recursight.registry.promote import promote
from recursight.registry.register import Registered, register
from recursight.registry.rollback import ProductionStatus, production_status, rollback
from recursight.registry.versions import CHALLENGER, CHAMPION, find_version, version_of, version_with

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "Decision",
    "ProductionStatus",
    "Registered",
    "find_version",
    "history",
    "production_status",
    "promote",
    "register",
    "rollback",
    "settle",
    "version_of",
    "version_with",
]
