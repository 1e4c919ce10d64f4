"""MLflow runs: what was trained, with what, and how well it went.

Files on disk are the truth. MLflow is a view of them that can be completed at any time:

- `live` is wrapped around a training. It shows a long training while it runs and hands the result over when it ends.
  The work is done by a second process, so that importing MLflow or waiting for a server never holds the training up.
- `sync` sends what the tracking store lacks: trainings, evaluations, results kept while it was down.
"""

from recursight.tracking.connection import Unreachable, connect, ensure_store
from recursight.tracking.live import live
from recursight.tracking.synchronise import SyncResult, attempt_sync, sync

__all__ = ["SyncResult", "Unreachable", "attempt_sync", "connect", "ensure_store", "live", "sync"]
