"""`recursight serve`: assembles the server, runs it, and drains it at the end."""

import json
import logging
import os
import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import FrameType

import numpy as np
import torch
import uvicorn

from recursight.errors import InputError
from recursight.host_check import App, HostCheck, is_loopback, names_of
from recursight.layout import Layout
from recursight.params import load
from recursight.processes import end_after, sigterm_is_success
from recursight.registry.loading import LoadedVersion
from recursight.serving.app import Service, create_app
from recursight.serving.batching import Batcher
from recursight.serving.champion import load_champion
from recursight.serving.connections import HEAD_SECONDS, Connection
from recursight.serving.decoding import Decoders
from recursight.serving.measurement import Measurement
from recursight.serving.metrics import Metrics
from recursight.serving.prediction_log import PredictionLog
from recursight.serving.watch import ChampionWatch

DRAIN_SECONDS = 7  # for the requests in progress
EXIT_SECONDS = 10  # after which the operating system ends the process
PROBES = ("/health", "/ready")  # answered under any name


def serve(
    layout: Layout,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    allowed_hosts: Collection[str] = (),
    started: Callable[[str, LoadedVersion], None] = lambda url, model: None,
) -> None:
    """Answers with the champion until SIGTERM or Ctrl-C, then ends within ten seconds.

    Args:
        layout: of the project.
        host: address to listen at.
        port: 0 for any that is free.
        allowed_hosts: further names that clients may call the server by.
        started: is called with address and version when requests can be sent.

    Raises:
        InputError: if the port is taken, or there is no champion.
        Unreachable: if MLflow does not answer.
    """
    if not is_loopback(host) and not allowed_hosts:
        raise InputError(
            f"{host} can be reached from other machines: give the host names that they use, such as "
            "`--allow-host images.example.org`, or `--allow-host '*'` if a proxy checks that."
        )
    limits = load(layout.params).serve
    metrics = Metrics()
    with ExitStack() as stack:
        stack.callback(end_after, 0)
        listener = stack.enter_context(_listener(host, port))
        decoders = Decoders(limits)
        stack.callback(decoders.close)
        torch.set_num_threads(limits.threads)
        watch = ChampionWatch(
            layout,
            load_champion(layout),
            poll_seconds=limits.poll_seconds,
            batch=limits.batch_images,
            metrics=metrics,
        )
        stack.callback(watch.close)
        log = stack.enter_context(PredictionLog(layout.predictions, rows=limits.log_rows, images=limits.log_images))
        metrics.unlogged.set_function(lambda: log.dropped)

        def record(model: LoadedVersion, images: np.ndarray, answers: np.ndarray, seconds: float) -> None:
            log.record("serve", model, images, answers)
            metrics.batch_images.observe(len(images))
            metrics.model_seconds.observe(seconds)
            metrics.count(model.task.rendering.summary(answers, model.vocabulary), len(images))

        batcher = Batcher(limits.batch_images, limits.threads, record)
        stack.callback(batcher.close)

        def version() -> tuple[str, int]:
            return watch.model.name, watch.model.version

        def refusal(status: int, sentence: str) -> tuple[bytes, bytes]:
            content = {"error": sentence, **dict(zip(("model", "version"), version(), strict=True))}
            return b"application/json", json.dumps(content).encode()

        service = create_app(Service(watch, batcher, decoders, limits, metrics))
        checked = HostCheck(service, names_of(host, allowed_hosts), any_host=PROBES, body=refusal)
        app = Measurement(checked, version=version, metrics=metrics)
        name, bound = listener.getsockname()[:2]
        url = f"http://{f'[{name}]' if ':' in name else name}:{bound}"
        _run(app, partial(Connection, version=version), listener, lambda: started(url, watch.model))


@contextmanager
def _listener(host: str, port: int) -> Iterator[socket.socket]:
    """Bound before the model is loaded, so that a port in use is reported at once."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            yield listener
    except socket.gaierror:
        raise InputError(f"{host!r} is not an address of this machine.") from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(f"cannot listen at {host}:{port}: {reason}. Give another --host or --port.") from None


class _Server(uvicorn.Server):
    """Calls back when it listens, and ends within ten seconds of a signal."""

    def __init__(self, configuration: uvicorn.Config, listens: Callable[[], None]) -> None:
        super().__init__(configuration)
        self._listens = listens

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listens()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        end_after(EXIT_SECONDS)
        super().handle_exit(sig, frame)


def _run(app: App, connection: Callable[..., Connection], listener: socket.socket, listens: Callable[[], None]) -> None:
    configuration = uvicorn.Config(
        app,
        http=connection,  # type: ignore[arg-type]
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=HEAD_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    with sigterm_is_success():  # uvicorn drains, then raises the signal again for the previous handler
        _Server(configuration, listens).run(sockets=[listener])
