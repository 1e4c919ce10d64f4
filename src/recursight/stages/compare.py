"""The stage compare: every candidate's evaluation becomes one ranking and one report."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recursight.data.store import Store, open_store
from recursight.errors import InputError
from recursight.evaluation.compare import SPLITS, Comparison, Entrant, compare
from recursight.evaluation.report import Evidence, Mistake, render
from recursight.evaluation.table import print_ranking
from recursight.files import read_json, replacing, write_json, write_text
from recursight.layout import Layout
from recursight.params import Candidate, Params, load
from recursight.params.experiment import in_words
from recursight.stages.lifeline import alone, in_a_flow

MISTAKES = 24  # that the report shows of the winner


def run(layout: Layout) -> None:
    """Compares all candidates of params.yaml.

    Raises:
        InputError: if one is not evaluated yet, or on other data than the rest.
    """
    with alone(layout.lock("compare")):
        _run(layout, load(layout.params))


def _run(layout: Layout, params: Params) -> None:
    _sweep(layout, params)
    store = open_store(layout.store)
    actual = {split: store.labels(split) for split in SPLITS}
    entrants = [_entrant(layout, params, name, store) for name in params.candidates]
    comparison = compare(
        entrants,
        actual,
        classes=len(store.classes),
        metric=params.compare.metric,
        samples=params.compare.bootstrap_samples,
        confidence=params.compare.confidence,
        seed=params.compare.seed,
    )
    evidence = _evidence(layout, params, store, comparison, entrants)
    with replacing(layout.comparison) as folder:
        folder.mkdir()
        write_text(folder / "report.html", render(evidence))
        pd.DataFrame(comparison.ranking).to_csv(folder / "ranking.csv", index=False)
        write_json(folder / "comparison.json", _summary(comparison, store))
    if not in_a_flow():  # a flow shows the table at its end
        print_ranking(comparison.ranking, comparison.confidence)


def _sweep(layout: Layout, params: Params) -> None:
    """Removes what is left of candidates that are no longer in params.yaml; DVC's cache still has it.

    The stage depends on the folders that hold all candidates, so a leftover would count as a change elsewhere.
    """
    for folder in (layout.candidate("x").parent, layout.evaluation("x").parent):
        for left in folder.iterdir():
            if left.is_dir() and left.name not in params.candidates:
                shutil.rmtree(left)
                print(f"removed {left.relative_to(layout.root)}: no such candidate in params.yaml any more")


def _summary(comparison: Comparison, store: Store) -> dict[str, Any]:
    return {
        "winner": comparison.winner,
        "winner_seed": comparison.winner_seed,
        "metric": comparison.metric,
        "confidence": comparison.confidence,
        "data_digest": store.digest,
        "ranking": comparison.ranking,
    }


def _entrant(layout: Layout, params: Params, name: str, store: Store) -> Entrant:
    """One candidate's figures and predicted labels, checked to be of this store."""
    metrics, predicted = [], []
    for seed in params.seeds:
        folder = layout.evaluation_of(name, seed)
        try:
            metrics.append(read_json(folder / "metrics.json"))
            table = pd.read_parquet(folder / "predictions.parquet", columns=["split", "id", "predicted"])
        except FileNotFoundError:
            raise InputError(f"{name} with seed {seed} is not evaluated yet; run `dvc repro`.") from None
        if metrics[-1]["data_digest"] != store.digest:
            raise InputError(
                f"{name} with seed {seed} was evaluated on other data than the store holds; run `dvc repro`."
            )
        predicted.append({split: _labels(table, split, store, folder) for split in SPLITS})
    stacked = {split: np.stack([one[split] for one in predicted]) for split in SPLITS}
    return Entrant(name, list(params.seeds), metrics, stacked)


def _labels(table: pd.DataFrame, split: str, store: Store, folder: Path) -> np.ndarray:
    part = table[table["split"] == split]
    expected = store.manifest["id"].to_numpy()[store.indices(split)]
    if not np.array_equal(part["id"].to_numpy(), expected):
        raise InputError(f"{folder}/predictions.parquet does not list the store's {split} images; run `dvc repro`.")
    labels: np.ndarray = pd.Index(store.classes).get_indexer(pd.Index(part["predicted"]))
    return labels


def _evidence(
    layout: Layout, params: Params, store: Store, comparison: Comparison, entrants: list[Entrant]
) -> Evidence:
    mistakes, mistaken = _mistakes(layout, comparison, store)
    actual = store.labels("test")
    return Evidence(
        comparison=comparison,
        architectures={name: on_one_line(candidate) for name, candidate in params.candidates.items()},
        histories={name: pd.read_csv(layout.history_plot(name)) for name in params.candidates},
        gradients={name: _gradients(layout.bundle(name, params.seeds[0])) for name in params.candidates},
        confusions={
            entrant.name: sum_of_confusions(actual, entrant.predicted["test"], len(store.classes))
            for entrant in entrants
        },
        classes=list(store.classes),
        images={split: len(store.indices(split)) for split in ("train", *SPLITS)},
        mistakes=mistakes,
        mistaken=mistaken,
        data_digest=store.digest,
    )


def on_one_line(candidate: Candidate) -> str:
    """An architecture, such as `rows → lstm 128, 64 both ways → attention`."""
    parts = [] if candidate.stem == "none" else [in_words(candidate.stem)]
    parts.append(in_words(candidate.scan).replace("+", " + "))
    if candidate.layer != "none":
        both_ways = " both ways" if candidate.bidirectional else ""
        parts.append(f"{in_words(candidate.layer)} {', '.join(map(str, candidate.hidden))}{both_ways}")
        parts.append(in_words(candidate.readout))
    return " → ".join(parts)


def sum_of_confusions(actual: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts over all seeds, K × K, from labels N and S × N."""
    places = (actual * classes + predicted).ravel()
    return np.bincount(places, minlength=classes**2).reshape(classes, classes)


def _gradients(bundle: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(bundle / "gradient_norms.csv")
    except pd.errors.EmptyDataError:  # a network without states has none
        return pd.DataFrame(columns=["layer", "state", "step", "norm"])


def _mistakes(layout: Layout, comparison: Comparison, store: Store) -> tuple[list[Mistake], int]:
    """The most confident mistakes of the winner's best training, and how many there are."""
    folder = layout.evaluation_of(comparison.winner, comparison.winner_seed)
    table = pd.read_parquet(folder / "predictions.parquet", filters=[("split", "==", "test")])
    actual, predicted = table["actual"].to_numpy(dtype=object), table["predicted"].to_numpy(dtype=object)
    certainty = np.stack(table["probabilities"].to_list()).max(axis=1)
    wrong = np.flatnonzero(actual != predicted)
    worst = wrong[np.argsort(-certainty[wrong], kind="stable")][:MISTAKES]
    images = store.images[store.indices("test")[worst], 0]
    return [
        Mistake(image, actual[row], predicted[row], float(certainty[row]))
        for image, row in zip(images, worst, strict=True)
    ], len(wrong)
