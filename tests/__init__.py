"""The tests of recursight."""

import os

# Of tests and all that they start: on processors that two workers share, a second thread mostly waits, and spins.
# Set before numpy and torch are imported, which read it once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
