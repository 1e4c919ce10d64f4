"""A training that logs some epochs and then goes on until it is killed: `training_process.py ROOT EPOCHS`."""

import signal
import sys
import time
from pathlib import Path

from recursight.files import read_json
from recursight.layout import Layout
from recursight.params import load
from recursight.tracking import live
from recursight.tracking.results import Result

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
layout = Layout(Path(sys.argv[1]))
bundle = layout.bundle("gru", 0)
with live(layout, load(layout.params), read_json(bundle / "card.json"), bundle, live_after_seconds=0) as run:
    for row in Result(bundle, None).history[: int(sys.argv[2])]:
        run.log_epoch(row)
    while True:
        time.sleep(60)
