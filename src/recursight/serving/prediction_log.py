"""What the champion said, kept for those who look for drift: parquet parts under `.recursight/predictions`."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def read_log(folder: Path, since: datetime | None = None) -> "pd.DataFrame":
    """The recorded predictions, the oldest first.

    Args:
        folder: of the parts; need not exist.
        since: with a time zone; earlier predictions are left out.
    """
    import pandas as pd

    parts = [pd.read_parquet(path) for path in sorted(folder.glob("[!.]*.parquet"))]
    if not parts:
        columns = ("time", "source", "model", "version", "predicted", "confidence", "probabilities")
        return pd.DataFrame({name: [] for name in columns}).astype({"time": "datetime64[us, UTC]"})
    log = pd.concat(parts, ignore_index=True).sort_values("time", kind="stable", ignore_index=True)
    return log if since is None else log[log["time"] >= since].reset_index(drop=True)
