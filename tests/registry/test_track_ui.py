"""`recursight track ui` starts a server that answers only with the login that it prints."""

import base64
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import pytest

from recursight.layout import Layout
from tests.processes import end_tree
from tests.tracking.servers import START_SECONDS

pytestmark = pytest.mark.slow


@pytest.fixture
def printed(project: Layout) -> Iterator[str]:
    """What it prints while it runs."""
    command = [sys.executable, "-c", "from recursight.cli import main; main()", "track", "ui"]
    with (project.root / "ui.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=project.root, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline() + process.stdout.readline()
    finally:
        end_tree(process)
        process.stdout.close()


def get(url: str, login: str | None = None, method: str = "GET") -> int:
    headers = {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if login else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers, method=method), timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        refused.close()
        return refused.code


def test_it_answers_only_with_the_login_that_it_prints(printed: str) -> None:
    (url, login) = re.search(r"(http://127\.0\.0\.1:\d+)/", printed), re.search(r"user (\S+), password (\S+)", printed)
    assert url
    assert login
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError):
            if get(f"{url[1]}/health") == 200:
                break
        time.sleep(0.2)
    search = f"{url[1]}/api/2.0/mlflow/experiments/get?experiment_id=0"
    assert get(search) == 401
    assert get(f"{url[1]}/") == 401
    assert get(search, f"{login[1]}:wrong") == 401
    assert get(search, f"{login[1]}:{login[2]}") == 200
