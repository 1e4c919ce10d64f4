"""`mlflow models serve` answers raw images with class names and probabilities."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from recursight.data.store import open_store
from recursight.registry import register
from recursight.tracking.connection import tracking_uri
from tests.tracking.servers import START_SECONDS, free_port

pytestmark = pytest.mark.slow


@pytest.fixture
def address(project) -> Iterator[str]:
    """Of a served champion."""
    register(project)
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/recursight@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    settings = {"MLFLOW_TRACKING_URI": tracking_uri(project), "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    settings["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # as in an activated environment
    log = project.root / "serve.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env=os.environ | settings, stdout=file, stderr=file, cwd=project.root, start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2):
                break
            time.sleep(0.1)
        else:
            raise TimeoutError(log.read_text())
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def ask(address: str, content: object) -> list[dict]:
    body = json.dumps(content).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)["predictions"]


def test_raw_images_get_class_names_and_probabilities_at_any_batch_size(address, project):
    images = np.array(open_store(project.store).frames[:300])
    for count in (1, 2, 300):
        answers = ask(address, {"inputs": images[:count].tolist()})
        assert len(answers) == count
        for answer in answers:
            assert answer["class"] in answer["probabilities"]
            assert answer["probabilities"][answer["class"]] == answer["probability"]
            assert sum(answer["probabilities"].values()) == pytest.approx(1)
    for wrong in (images[:1, :4].tolist(), (images[:1].astype(int) + 300).tolist(), "images"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(address, {"inputs": wrong})
        assert refused.value.code == 400
        refused.value.close()
