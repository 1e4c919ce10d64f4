"""The same network in Keras 3 on TensorFlow, in an environment of its own: as contend.py, with the weights it wrote."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.cases import BATCH, CASES, CLASSES, LEARNING_RATE, SECONDS, SIDE, Case, draw


def network(case: Case, weights: Any) -> keras.Model:
    kinds = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "elman": keras.layers.SimpleRNN}
    model = keras.Sequential([keras.Input((SIDE, SIDE))])
    for depth, hidden in enumerate(case.hidden):
        layer = kinds[case.layer](hidden, return_sequences=depth + 1 < len(case.hidden))
        model.add(layer)
        prefix = f"stacks.0.layers.{depth}.rnn."
        kernel, recurrent, one, other = (
            weights[f"{prefix}{part}_l0"] for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        if case.layer == "gru":  # Keras puts the update gate first, and keeps both biases
            order = np.r_[hidden : 2 * hidden, :hidden, 2 * hidden : 3 * hidden]
            layer.set_weights([kernel[order].T, recurrent[order].T, np.stack([one[order], other[order]])])
        else:
            layer.set_weights([kernel.T, recurrent.T, one + other])
    head = keras.layers.Dense(CLASSES)
    model.add(head)
    head.set_weights([weights["head.1.weight"].T, weights["head.1.bias"]])
    return model


class Round(keras.callbacks.Callback):
    """Ends a fit after the epoch in which its time is up, and counts: a fit has set-up of its own, which is not."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if not epoch:
            self.started, self.used = time.perf_counter(), time.process_time()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs = epoch + 1
        self.seconds, self.processor = time.perf_counter() - self.started, time.process_time() - self.used
        self.model.stop_training = self.seconds > SECONDS


def main(name: str, contender: str, threads: str, folder: str) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(int(threads))
    tf.config.threading.set_inter_op_parallelism_threads(int(threads))
    case = CASES[name]
    model = network(case, np.load(Path(folder) / f"{name}.npz"))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(LEARNING_RATE), loss=loss)
    images, labels = draw(max(BATCH, case.images))
    images = images[..., 0].astype("float32") / 255
    print(float(loss(labels[:BATCH], model(images[:BATCH]))), flush=True)

    def training() -> tuple[float, float]:
        counted = Round()
        model.fit(
            images[: case.images],
            labels[: case.images],
            batch_size=BATCH,
            epochs=1_000_000,
            shuffle=True,
            verbose=0,
            callbacks=[counted],
        )
        seen = counted.epochs * case.images
        return seen / counted.seconds, seen / counted.processor

    batch = images[: case.inference]
    tensor, compiled = tf.constant(batch), tf.function(lambda given: model(given, training=False))

    def answer() -> Any:
        return compiled(tensor) if contender == "keras-function" else model.predict(batch, batch_size=1024, verbose=0)

    def inference() -> tuple[float, float]:
        seen, started, used = 0, time.perf_counter(), time.process_time()
        while (elapsed := time.perf_counter() - started) < SECONDS:
            answer()
            seen += case.inference
        return seen / elapsed, seen / (time.process_time() - used)

    round_: Callable[[], tuple[float, float]] = inference if case.inference else training
    for _ in sys.stdin:
        print(*round_(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
