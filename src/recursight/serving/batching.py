"""Requests that wait at the same time are answered together.

While the model works on a batch, further requests gather, and the next batch takes all of them: a single request waits
for nothing, and many at once cost little more than one. There is no waiting time to tune.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from time import perf_counter

import numpy as np
import torch

from recursight.registry.loading import LoadedVersion

_log = logging.getLogger("recursight.serving")


class Batcher:
    """One thread that runs the model.

    Args:
        images: maximum batch size; a single larger request is still one batch.
        threads: CPU threads of the model.
        done: is called after each batch: model, images (N, H, W, C), answers (N, ...), seconds that the model took.
    """

    def __init__(
        self, images: int, threads: int, done: Callable[[LoadedVersion, np.ndarray, np.ndarray, float], None]
    ) -> None:
        self._most, self._threads, self._done = images, threads, done
        self._waiting: deque[tuple[LoadedVersion, np.ndarray, Future[np.ndarray]]] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    def submit(self, model: LoadedVersion, images: np.ndarray) -> Future[np.ndarray]:
        """Answers (N, ...) to come, by this version, for images (N, H, W, C) as it takes them."""
        answer: Future[np.ndarray] = Future()
        with self._change:
            self._waiting.append((model, images, answer))
            self._change.notify()
        return answer

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """Answers the requests that wait, then ends; a batch that takes longer than a second is abandoned."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join(timeout=1)

    def _work(self) -> None:
        torch.set_num_threads(self._threads)  # torch counts them for each of our threads anew
        while batch := self._next():
            model = batch[0][0]
            try:
                images = np.concatenate([images for _, images, _ in batch])
                started = perf_counter()
                answers = model.answers(images)
                seconds = perf_counter() - started
            except Exception as error:  # a model can raise anything
                for *_, answer in batch:
                    answer.set_exception(error)
                continue
            start = 0
            for _, each, answer in batch:
                answer.set_result(answers[start : start + len(each)])
                start += len(each)
            try:
                self._done(model, images, answers, seconds)
            except Exception:
                _log.exception("a batch was answered, but could not be recorded")

    def _next(self) -> list[tuple[LoadedVersion, np.ndarray, Future[np.ndarray]]]:
        """Requests for one version, in their order, whose callers still wait; empty at the end."""
        batch: list[tuple[LoadedVersion, np.ndarray, Future[np.ndarray]]] = []
        count = 0
        with self._change:
            while not batch:
                while not self._waiting and not self._closed:
                    self._change.wait()
                if not self._waiting:
                    return []
                while self._waiting:
                    model, images, answer = self._waiting[0]
                    if batch and (model is not batch[0][0] or count + len(images) > self._most):
                        break
                    self._waiting.popleft()
                    if answer.set_running_or_notify_cancel():
                        batch.append((model, images, answer))
                        count += len(images)
        return batch
