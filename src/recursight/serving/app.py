"""The HTTP interface. The event loop only passes things on: processes decode the bodies, a thread runs the model."""

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from recursight.errors import InputError
from recursight.params import Serve
from recursight.registry.loading import LoadedVersion
from recursight.serving.batching import Batcher
from recursight.serving.decoding import Decoders
from recursight.serving.measurement import version_headers
from recursight.serving.metrics import Metrics
from recursight.serving.uploads import READERS, RequestError
from recursight.serving.watch import ChampionWatch

BODY_SECONDS = 30
LARGE_ANSWER = 2000  # values, from which on a thread writes the JSON, not the event loop
READ_TO_REFUSE = 4  # times the limit: a client that is sending reads the answer only if its body is read meanwhile
FAILED = "The model failed on these images; the server's log says why."
_log = logging.getLogger("recursight.serving")


class Service:
    """What answers, and within which limits.

    Args:
        watch: holds the model in production.
        batcher: runs the model.
        decoders: decode the bodies.
        limits: of one request, and of all.
        metrics: of this server.
    """

    def __init__(
        self, watch: ChampionWatch, batcher: Batcher, decoders: Decoders, limits: Serve, metrics: Metrics
    ) -> None:
        self.watch, self.limits, self.metrics = watch, limits, metrics
        self._batcher, self._decoders = batcher, decoders
        self._at_work = 0

    @property
    def ready(self) -> bool:
        return self._batcher.alive and not self._decoders.stuck and self._at_work < self.limits.max_waiting

    async def predict(self, request: Request) -> Response:
        """Answers for all images of a request, by one version from its beginning to its end."""
        if self._at_work >= self.limits.max_waiting:
            raise RequestError(503, "Too many requests at once (serve.max_waiting): try again in a second.")
        self._at_work += 1
        try:
            return await self._answer(request, self.watch.model)
        except asyncio.CancelledError:
            raise RequestError(503, "The server is stopping.") from None
        finally:
            self._at_work -= 1

    async def _answer(self, request: Request, model: LoadedVersion) -> Response:
        body = await read_body(request, self.limits.max_bytes)
        kind = request.headers.get("content-type", "")
        images, names = await self._decoders.images_in(kind, body, model.input_shape, model.resize)
        try:
            answers = await asyncio.wrap_future(self._batcher.submit(model, images))
        except InputError as fault:
            _log.error("%s %s failed: %s", request.method, request.url.path, fault)
            raise RequestError(500, FAILED) from None
        if answers.size < LARGE_ANSWER:
            content = in_json(model, names, answers)
        else:
            content = await asyncio.to_thread(in_json, model, names, answers)
        return Response(content, media_type="application/json", headers=version_headers(model.name, model.version))


class Form(BaseModel):
    """Image files; the name of their field does not matter."""

    file: Annotated[list[bytes], Field(min_length=1)]


Value = Annotated[int, Field(strict=True, ge=0, le=255)]


class Arrays(BaseModel):
    """Images, each height × width for grey or height × width × 3, with integers from 0 to 255."""

    images: Annotated[list[list[list[Value | list[Value]]]], Field(min_length=1)]


BODIES: dict[str, type[BaseModel]] = {"multipart/form-data": Form, "application/json": Arrays}  # others are plain bytes


class Named(BaseModel):
    """An answer; it names the model in production."""

    model: str
    version: int


class Answers(Named):
    predictions: list[dict[str, Any]]


class State(Named):
    status: Literal["alive", "ready", "busy"]


class Refusal(Named):
    error: str


def create_app(service: Service) -> FastAPI:
    """POST /predict, GET /health, /ready, /metrics and /openapi.json."""
    # FastAPI's documentation pages would load scripts from other hosts.
    app = FastAPI(title="recursight", docs_url=None, redoc_url=None, responses=described(400, 403, 503))
    # Bodies are read by hand, because the limits must hold before anything is parsed; here they are only described.
    body = {kind: {"schema": BODIES[kind].model_json_schema()} if kind in BODIES else {} for kind in READERS}

    @app.post(
        "/predict",
        summary="Answers for images",
        response_model=Answers,
        responses=described(408, 413, 415, 422, 500),
        openapi_extra={"requestBody": {"required": True, "content": body}},
    )
    async def predict(request: Request) -> Response:
        return await service.predict(request)

    @app.get("/health", summary="Whether the process is alive")
    async def health() -> State:
        return State(status="alive", **_names(service.watch.model))

    @app.get("/ready", summary="Whether a request would be answered now", responses={503: {"model": State | Refusal}})
    async def ready(response: Response) -> State:
        response.status_code = 200 if service.ready else 503
        return State(status="ready" if service.ready else "busy", **_names(service.watch.model))

    @app.get("/metrics", summary="Figures for Prometheus", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    def refuse(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
        return JSONResponse({"error": sentence, **_names(service.watch.model)}, status, headers)

    @app.exception_handler(RequestError)
    async def refused(request: Request, fault: RequestError) -> Response:
        return refuse(fault.status, fault.sentence, {"Retry-After": "1"} if fault.status == 503 else None)

    @app.exception_handler(HTTPException)
    async def no_such(request: Request, fault: HTTPException) -> Response:
        sentence = {
            404: "There is nothing here; send images to POST /predict.",
            405: f"{request.method} is not answered here; it must be {(fault.headers or {}).get('Allow', 'POST')}.",
        }.get(fault.status_code, str(fault.detail))
        return refuse(fault.status_code, sentence, fault.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, fault: ClientDisconnect) -> Response:
        return refuse(400, "The body ended too early.")

    @app.exception_handler(Exception)
    async def failed(request: Request, fault: Exception) -> Response:
        _log.error("%s %s failed: %s: %s", request.method, request.url.path, type(fault).__name__, fault)
        return refuse(500, FAILED)

    return app


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: the statuses of refusals."""
    return {status: {"model": Refusal} for status in statuses}


async def read_body(request: Request, most: int) -> bytes:
    """The body, unless it is too long or does not come.

    Raises:
        RequestError: if so.
    """
    too_long = RequestError(413, f"The body has more than {most:,} bytes (serve.max_bytes).")
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > most:
        if "expect" not in request.headers:  # such a client has sent nothing yet
            await _discard(request, READ_TO_REFUSE * most)
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise too_long
    except TimeoutError:
        raise RequestError(408, f"The body did not arrive within {BODY_SECONDS} seconds.") from None
    return bytes(body)


async def _discard(request: Request, most: int) -> None:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                most -= len(part)
                if most < 0:
                    return
    except (TimeoutError, ClientDisconnect):
        return


def in_json(model: LoadedVersion, names: list[str], answers: np.ndarray) -> bytes:
    """Model, version, and for each image its name and what `Task.present` makes of its answer."""
    presented = model.task.present(answers, model.vocabulary)
    found = [{"name": name, **one} for name, one in zip(names, presented, strict=True)]
    return json.dumps({**_names(model), "predictions": found}, ensure_ascii=False).encode()


def _names(model: LoadedVersion) -> dict[str, Any]:
    return {"model": model.name, "version": model.version}
