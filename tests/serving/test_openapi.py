"""Requests that the OpenAPI description allows, and some that it forbids: each answer is one that it describes."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.serving.server import Server

pytestmark = pytest.mark.slow


ALLOWED, FORBIDDEN = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
OPERATIONS = [
    ("POST /predict", ALLOWED),
    ("POST /predict", FORBIDDEN),
    ("GET /health", ALLOWED),
    ("GET /ready", ALLOWED),
    ("GET /metrics", ALLOWED),
]


@pytest.mark.parametrize(("operation", "mode"), OPERATIONS)
def test_every_answer_is_described(server: Server, operation: str, mode: GenerationMode) -> None:
    method, path = operation.split()
    description = schemathesis.openapi.from_url(f"http://{server.host}/openapi.json")

    @settings(max_examples=50, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(description[path][method].as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(excluded_checks=[positive_data_acceptance])  # no schema says what a decoder can decode

    ask()
    assert server.log.read_text() == ""
