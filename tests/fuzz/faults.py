"""The inputs on which a target failed, one of each kind."""

from hashlib import sha256
from pathlib import Path


class Faults:
    """Keeps inputs in a folder, for the process that started this one.

    Args:
        target: name of what is tested.
        folder: of this run; it gets a folder `found`.
    """

    def __init__(self, target: str, folder: Path) -> None:
        self._target, self._folder = target, folder / "found"
        self._seen: set[str] = set()

    def keep(self, kind: str, content: bytes, message: str = "") -> None:
        """Keeps an input, unless there is one of this kind already."""
        if kind in self._seen:
            return
        self._seen.add(kind)
        self._folder.mkdir(exist_ok=True)
        path = self._folder / sha256(content).hexdigest()[:12]
        path.write_bytes(content)
        print(f"{self._target}: {path.name}: {kind}: {' '.join(message.split())[:200]}", flush=True)
