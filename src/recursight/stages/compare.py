"""The stage compare: every candidate's evaluation becomes one ranking and one report."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recursight.data.records import EVALUATED, SPLITS
from recursight.data.store import Store, open_store
from recursight.drawing.charts import COLOURS
from recursight.errors import InputError
from recursight.evaluation.compare import Comparison, Entrant, compare
from recursight.evaluation.report import Evidence, render
from recursight.executors.local import exclusive_lock
from recursight.files import read_json, replacing, write_json, write_text
from recursight.layout import Layout
from recursight.models.bundle import read_card
from recursight.params import Candidate, Params, load
from recursight.params.experiment import in_words
from recursight.tasks import Contender, Tested


def run(layout: Layout) -> dict[str, Any]:
    """Compares all candidates of params.yaml.

    Returns:
        The content of comparison.json.

    Raises:
        InputError: if one is not evaluated yet, or on other data than the rest.
    """
    with exclusive_lock(layout, "compare"):
        return _run(layout, load(layout.params))


def _run(layout: Layout, params: Params) -> dict[str, Any]:
    store = open_store(layout.store)
    entrants = [_entrant(layout, params, name, store) for name in params.candidates]
    comparison = compare(
        entrants,
        params.built_task.metrics,
        metric=params.metric("compare.metric", params.compare.metric),
        samples=params.compare.bootstrap_samples,
        confidence=params.compare.confidence,
        seed=params.compare.seed,
    )
    summary = {**asdict(comparison), "task": params.task.model_dump(), "data_digest": store.digest}
    with replacing(layout.comparison) as folder:
        folder.mkdir()
        write_text(folder / "report.html", render(_evidence(layout, params, store, comparison, entrants)))
        pd.DataFrame(comparison.ranking).to_csv(folder / "ranking.csv", index=False)
        write_json(folder / "comparison.json", summary)
    return summary


def _entrant(layout: Layout, params: Params, name: str, store: Store) -> Entrant:
    """One candidate's scores, checked to be of this store."""
    metrics, rows = [], []
    for seed in params.seeds:
        folder = layout.evaluation_of(name, seed)
        try:
            metrics.append(read_json(folder / "metrics.json"))
            table = pd.read_parquet(folder / "predictions.parquet").drop(columns="answer")
        except FileNotFoundError:
            raise InputError(f"{name} with seed {seed} is not evaluated yet; run `dvc repro`.") from None
        if metrics[-1]["data_digest"] != store.digest:
            raise InputError(
                f"{name} with seed {seed} was evaluated on other data than the store holds; run `dvc repro`."
            )
        rows.append({split: _rows(table, split, store, folder) for split in EVALUATED})
    return Entrant(name, list(params.seeds), metrics, {split: [one[split] for one in rows] for split in EVALUATED})


def _rows(table: pd.DataFrame, split: str, store: Store, folder: Path) -> pd.DataFrame:
    part = table[table["split"] == split]
    if not np.array_equal(part["id"].to_numpy(), store.examples["id"].to_numpy()[store.indices(split)]):
        raise InputError(f"{folder}/predictions.parquet does not list the store's {split} examples; run `dvc repro`.")
    return part.reset_index(drop=True)


def _evidence(
    layout: Layout, params: Params, store: Store, comparison: Comparison, entrants: list[Entrant]
) -> Evidence:
    return Evidence(
        comparison=comparison,
        architectures={name: on_one_line(candidate) for name, candidate in params.candidates.items()},
        histories={name: pd.read_csv(layout.history_plot(name)) for name in params.candidates},
        gradients={name: _gradients(layout.bundle(name, params.seeds[0])) for name in params.candidates},
        sections=params.built_task.sections(_contenders(layout, params, store, comparison, entrants)),
        examples={split: len(store.indices(split)) for split in SPLITS},
        data_digest=store.digest,
    )


def _contenders(
    layout: Layout, params: Params, store: Store, comparison: Comparison, entrants: list[Entrant]
) -> list[Contender]:
    """Best candidate first, each with the winner's best training first."""
    by_name = {entrant.name: entrant for entrant in entrants}
    colours = {name: index % COLOURS for index, name in enumerate(params.candidates)}
    examples, best = store.indices("test"), comparison.winner_seed
    seeds = sorted(params.seeds, key=lambda seed: seed != best)
    vocabulary = read_card(layout.bundle(comparison.winner, best)).vocabulary

    def tested(name: str, seed: int) -> Tested:
        rows = by_name[name].rows["test"][params.seeds.index(seed)]
        return Tested(rows, vocabulary, lambda chosen: store.first_frames(examples[chosen]), params.evaluate.confidence)

    return [
        Contender(row["candidate"], colours[row["candidate"]], [tested(row["candidate"], seed) for seed in seeds])
        for row in comparison.ranking
    ]


def on_one_line(candidate: Candidate) -> str:
    """An architecture, such as `rows → lstm 128, 64 both ways → attention`."""
    parts = [] if candidate.stem == "none" else [in_words(candidate.stem)]
    parts.append(in_words(candidate.scan).replace("+", " + "))
    if candidate.layer != "none":
        both_ways = " both ways" if candidate.bidirectional else ""
        parts.append(f"{in_words(candidate.layer)} {', '.join(map(str, candidate.hidden))}{both_ways}")
        parts.append(in_words(candidate.readout))
    return " → ".join(parts)


def _gradients(bundle: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(bundle / "gradient_norms.csv")
    except pd.errors.EmptyDataError:  # a network without states has none
        return pd.DataFrame(columns=["layer", "state", "step", "norm"])
