"""The registry behind a real MLflow server."""

import numpy as np
import pytest

from recursight.data.store import open_store
from recursight.registry import register
from recursight.serving.champion import load_champion
from tests.tracking.conftest import server

__all__ = ["server"]


@pytest.mark.slow
def test_a_winner_registered_over_http_is_loaded_over_http(project, server, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    assert register(project).champion == 1
    assert not register(project).created
    champion = load_champion(project)
    images = np.array(open_store(project.store).frames[:3])
    together, alone = champion.answers(images), np.concatenate([champion.answers(image[None]) for image in images])
    assert (together.argmax(axis=1) == alone.argmax(axis=1)).all()
    assert not (project.root / "mlartifacts").exists()
