"""The stage evaluate@NAME: a candidate's bundles and the store become scores, answers and figures."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
import torch

from recursight.data.records import EVALUATED
from recursight.data.store import Store, open_store
from recursight.errors import InputError
from recursight.evaluation.metrics import scores
from recursight.evaluation.predict import Program, answers, images_per_second, latency
from recursight.executors.local import exclusive_lock
from recursight.files import read_json, replacing, write_json
from recursight.layout import Layout
from recursight.models.bundle import Card, load_bundle
from recursight.params import Params, load
from recursight.tasks import Task, Tested
from recursight.training.devices import choose_device

BATCH = 512
COSTS = ("parameters", "train_seconds", "latency_ms", "throughput")


def run(layout: Layout, name: str) -> None:
    """Evaluates every training of a candidate.

    Raises:
        InputError: if a bundle or the store is missing, or the bundle was trained on other data or for another task.
    """
    params = load(layout.params)
    params.candidate(name)
    torch.set_num_threads(params.training_of(name).threads)
    device = choose_device(params.execution.device)
    store = open_store(layout.store)
    metrics, plotted = [], []
    with exclusive_lock(layout, f"evaluate@{name}"), replacing(layout.evaluation(name)) as folder:
        for seed in params.seeds:
            target = folder / f"seed-{seed}"
            target.mkdir(parents=True)
            found, rows = _evaluate(params, store, layout.bundle(name, seed), target, device)
            metrics.append(found)
            plotted.append(rows.reindex(columns=["actual", "predicted"]))
            print(_line(found, params.built_task), flush=True)
    write_json(layout.metrics(name), _means(metrics))
    with replacing(layout.answers_plot(name)) as path:
        pd.concat(plotted).to_csv(path, index=False)


def _evaluate(
    params: Params, store: Store, bundle: Path, folder: Path, device: torch.device
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Writes one training's evaluation; returns the content of metrics.json, and the scores of the test examples."""
    task, confidence = params.built_task, params.evaluate.confidence
    network, card = load_bundle(bundle)
    _check(card, params, store, bundle)
    program = Program(network, task).eval()
    metrics = _costs(card, bundle) | latency(program.answer, _example(card), threads=params.serve.threads)
    tables = []
    program.to(device)
    rows = pd.DataFrame()
    for split in EVALUATED:
        examples = store.indices(split)
        if not len(examples):
            raise InputError(f"The store has no {split} examples; set prepare.{split} in params.yaml, run `dvc repro`.")
        about = store.examples.iloc[examples]
        first, lengths = about["first_frame"].to_numpy(), about["frames"].to_numpy()
        answered = answers(
            program, store.frames, first, lengths=None if store.stills else lengths, batch_size=BATCH, device=device
        )
        targets = task.encode(about, store.targets_of(examples), card.vocabulary)
        rows = task.score(answered, targets, card.vocabulary, about)
        metrics[split] = scores(rows, task, confidence)
        each = np.split(answered, np.cumsum(lengths)[:-1]) if task.per_frame else list(answered)
        tables.append(_table(split, about["id"], rows, each))
    metrics |= {
        "throughput": _throughput(program, store, device),
        "device": device.type,
    }
    write_json(folder / "metrics.json", metrics)
    pd.concat(tables, ignore_index=True).to_parquet(folder / "predictions.parquet", index=False)
    tested = store.indices("test")
    task.figures(folder, Tested(rows, card.vocabulary, lambda chosen: store.first_frames(tested[chosen]), confidence))
    return metrics, rows


def _throughput(program: Program, store: Store, device: torch.device) -> float:
    """Images, or frames of clips, a second."""
    tested = store.examples.iloc[store.indices("test")]
    if store.stills:
        frames = store.frames[tested["first_frame"].to_numpy()[:BATCH]]
        return images_per_second(program, frames, device=device)
    first, length = tested["first_frame"].iloc[0], tested["frames"].iloc[0]
    return images_per_second(program, store.frames[first : first + length], device=device, clip=True)


def _check(card: Card, params: Params, store: Store, bundle: Path) -> None:
    if card.task != params.task.model_dump():
        raise InputError(f"{bundle} was trained for another task than params.yaml names; run `dvc repro`.")
    if card.data_digest != store.digest:
        raise InputError(f"{bundle} was trained on other data than the store holds now; run `dvc repro`.")


def _costs(card: Card, bundle: Path) -> dict[str, Any]:
    account = read_json(bundle / "training.json")
    return {
        "candidate": card.candidate,
        "seed": card.seed,
        "task": card.task,
        "bundle_digest": card.digest,
        "data_digest": card.data_digest,
        "parameters": card.parameters,
        "train_seconds": account["seconds"],
        "images_per_second": account["images_per_second"],
    }


def _example(card: Card) -> np.ndarray:
    """A blank input: one image, N H W C; or one clip of usual length, T H W C."""
    return np.zeros((card.frames, *card.input_shape), np.uint8)


def _table(split: str, ids: pd.Series, rows: pd.DataFrame, answered: Sequence[np.ndarray]) -> pd.DataFrame:
    """One row an example: split, id, the scores, and the answer, flattened."""
    table = rows.assign(answer=pd.Series([answer.ravel() for answer in answered], index=rows.index, dtype=object))
    table.insert(0, "split", split)
    table.insert(1, "id", ids.to_numpy())
    return table


def _means(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """The metrics that DVC shows: means over seeds."""

    def mean(values: list[Any]) -> Any:
        return values[0] if len(set(values)) == 1 else fmean(values)

    splits = {
        split: {key: mean([one[split][key] for one in metrics]) for key in metrics[0][split]} for split in EVALUATED
    }
    return splits | {key: mean([one[key] for one in metrics]) for key in COSTS}


def _line(metrics: dict[str, Any], task: Task) -> str:
    test = metrics["test"]
    first, *others = list(task.metrics.values())[:3]
    low, high = (first.text(test[f"{first.name}_{end}"]) for end in ("low", "high"))
    listed = "".join(f", {metric.title} {metric.text(test[metric.name])}" for metric in others)
    return (
        f"evaluate {metrics['candidate']} seed {metrics['seed']}: test {first.title} {first.text(test[first.name])} "
        f"({low} to {high}){listed}, {metrics['latency_ms']:.2f} ms an image ({metrics['latency_on']}), "
        f"{metrics['throughput']:,.0f} images/s"
    )
