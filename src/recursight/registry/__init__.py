"""The model registry: versions of winners, and which of them is in production.

A version carries one of two aliases: `champion`, the model that serves, or `challenger`, the current winner while it
is not the champion.
"""

from recursight.registry.register import Registered, register
from recursight.registry.versions import CHALLENGER, CHAMPION, version_of, version_with

__all__ = ["CHALLENGER", "CHAMPION", "Registered", "register", "version_of", "version_with"]
