"""The stage evaluate@NAME: a candidate's bundles and the store become figures, predictions and pictures."""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from recursight.data.store import Store, open_store
from recursight.errors import InputError
from recursight.evaluation import pictures, scores
from recursight.evaluation.predict import images_per_second, latency_milliseconds, probabilities
from recursight.executors.local import exclusive_lock
from recursight.files import read_json, replacing, write_json
from recursight.layout import Layout
from recursight.models.bundle import Card, load_bundle
from recursight.params import Evaluate, load
from recursight.training.devices import choose_device

BATCH = 512
SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Answers:
    """What a network says about one split: labels, N, and probabilities, N × K."""

    actual: np.ndarray
    probabilities: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        labels: np.ndarray = self.probabilities.argmax(axis=1)
        return labels


def run(layout: Layout, name: str) -> None:
    """Evaluates every training of a candidate.

    Raises:
        InputError: if a bundle or the store is missing, or the bundle was trained on other data.
    """
    params = load(layout.params)
    params.candidate(name)
    training = params.training_of(name)
    torch.set_num_threads(training.threads)
    device = choose_device(training.device)
    store = open_store(layout.store)
    figures, confusions = [], []
    with exclusive_lock(layout, f"evaluate@{name}"), replacing(layout.evaluation(name)) as folder:
        for seed in params.seeds:
            bundle = layout.bundle(name, seed)
            model, card = load_bundle(bundle)
            _check(card, store, bundle)
            model.to(device)
            answers = {split: _answer(model, store, split, device) for split in SPLITS}
            target = folder / f"seed-{seed}"
            target.mkdir(parents=True)
            figures.append(_figures(answers, params.evaluate, card, bundle) | _speed(model, store, device))
            write_json(target / "metrics.json", figures[-1])
            _write_predictions(target / "predictions.parquet", answers, store)
            _write_test(target, answers["test"], store, params.evaluate, figures[-1])
            confusions.append(_pairs(answers["test"], store))
            print(_line(figures[-1]), flush=True)
    write_json(layout.metrics(name), _means(figures))
    with replacing(layout.confusion_plot(name)) as path:
        pd.concat(confusions).to_csv(path, index=False)


def _check(card: Card, store: Store, bundle: Path) -> None:
    if card.data_digest != store.digest:
        raise InputError(f"{bundle} was trained on other data than the store holds now; run `dvc repro`.")
    if (1, *card.input_shape) != store.shape or tuple(card.classes) != store.classes:
        raise InputError(
            f"{bundle} takes images of {card.input_shape} in {len(card.classes)} classes, but the store holds "
            f"{list(store.shape)[1:]} in {len(store.classes)}; run `dvc repro`."
        )


def _answer(model: nn.Module, store: Store, split: str, device: torch.device) -> Answers:
    rows = store.indices(split)
    if not len(rows):
        raise InputError(f"The store has no {split} images; set prepare.{split} in params.yaml, run `dvc repro`.")
    return Answers(store.labels(split), probabilities(model, store.images[:, 0], rows, batch_size=BATCH, device=device))


def _figures(answers: dict[str, Answers], settings: Evaluate, card: Card, bundle: Path) -> dict[str, Any]:
    account = read_json(bundle / "training.json")
    return {
        "candidate": card.candidate,
        "seed": card.seed,
        "bundle_digest": card.digest,
        "data_digest": card.data_digest,
        "parameters": card.parameters,
        "train_seconds": account["seconds"],
        "images_per_second": account["images_per_second"],
    } | {
        split: scores.scores(
            answer.actual,
            answer.probabilities,
            top_k=settings.top_k,
            bins=settings.calibration_bins,
            confidence=settings.confidence,
        )
        for split, answer in answers.items()
    }


def _speed(model: nn.Module, store: Store, device: torch.device) -> dict[str, Any]:
    batch = store.images[store.indices("test")[:BATCH], 0]
    return {
        "latency_ms": latency_milliseconds(model, batch[0], device=device),
        "throughput": images_per_second(model, batch, device=device),
        "device": device.type,
    }


def _write_predictions(path: Path, answers: dict[str, Answers], store: Store) -> None:
    """One row per image of each split: split, id, actual, predicted, probabilities."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = np.array(store.classes, dtype=object)
    ids = store.manifest["id"].to_numpy()
    tables = []
    for split, answer in answers.items():
        count, classes = answer.probabilities.shape
        offsets = np.arange(0, (count + 1) * classes, classes, dtype=np.int32)
        columns = {
            "split": pa.array([split] * count),
            "id": pa.array(ids[store.indices(split)], pa.string()),
            "actual": pa.array(names[answer.actual], pa.string()),
            "predicted": pa.array(names[answer.predicted], pa.string()),
            "probabilities": pa.ListArray.from_arrays(offsets, answer.probabilities.ravel()),
        }
        tables.append(pa.table(columns))
    pq.write_table(pa.concat_tables(tables), path)


def _write_test(folder: Path, answers: Answers, store: Store, settings: Evaluate, figures: dict[str, Any]) -> None:
    """Confusion, per-class scores, reliability and mistakes on the test split, as tables and pictures."""
    classes = list(store.classes)
    counts = scores.confusion(answers.actual, answers.predicted, len(classes))
    shares = scores.normalised(counts)
    for file, values in (("confusion", counts), ("confusion_normalised", shares)):
        table = pd.DataFrame(values, columns=classes)
        table.insert(0, "actual", classes, allow_duplicates=True)
        table.to_csv(folder / f"{file}.csv", index=False)
    scores.per_class(answers.actual, answers.predicted, classes).to_csv(folder / "per_class.csv", index=False)
    bins = scores.reliability(
        answers.actual, answers.probabilities, bins=settings.calibration_bins, confidence=settings.confidence
    )
    bins.to_csv(folder / "reliability.csv", index=False)
    pictures.draw_confusion(folder / "confusion.png", counts, shares, classes)
    error = figures["test"]["calibration_error"]
    pictures.draw_reliability(folder / "reliability.png", bins, error, settings.confidence)
    _draw_mistakes(folder / "mistakes.png", answers, store, settings.mistakes)


def _draw_mistakes(path: Path, answers: Answers, store: Store, most: int) -> None:
    certainty = answers.probabilities.max(axis=1)
    wrong = np.flatnonzero(answers.predicted != answers.actual)
    worst = wrong[np.argsort(-certainty[wrong], kind="stable")][:most]
    images = store.images[store.indices("test")[worst], 0]
    names = store.classes
    captions = [(names[answers.actual[row]], names[answers.predicted[row]], float(certainty[row])) for row in worst]
    pictures.draw_mistakes(path, images, captions, len(wrong))


def _pairs(answers: Answers, store: Store) -> pd.DataFrame:
    names = np.array(store.classes, dtype=object)
    return pd.DataFrame({"actual": names[answers.actual], "predicted": names[answers.predicted]})


def _means(figures: list[dict[str, Any]]) -> dict[str, Any]:
    """The metric that DVC shows: means over seeds."""

    def mean(values: list[Any]) -> Any:
        return values[0] if len(set(values)) == 1 else fmean(values)

    splits = {split: {key: mean([one[split][key] for one in figures]) for key in figures[0][split]} for split in SPLITS}
    costs = ("parameters", "train_seconds", "latency_ms", "throughput")
    return splits | {key: mean([one[key] for one in figures]) for key in costs}


def _line(figures: dict[str, Any]) -> str:
    test = figures["test"]
    return (
        f"evaluate {figures['candidate']} seed {figures['seed']}: test accuracy {test['accuracy']:.2%} "
        f"({test['accuracy_low']:.2%} to {test['accuracy_high']:.2%}), macro F1 {test['macro_f1']:.2%}, "
        f"log loss {test['log_loss']:.4f}, {figures['latency_ms']:.2f} ms an image, "
        f"{figures['throughput']:,.0f} images/s"
    )
