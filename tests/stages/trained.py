"""A project whose candidates have really been trained, if only for a moment."""

import shutil
from pathlib import Path

import pandas as pd
import torch
import yaml

from recursight.data.store import Store, open_store
from recursight.files import write_json
from recursight.layout import Layout
from recursight.models.assembly import assemble
from recursight.models.bundle import save_bundle
from recursight.params import load
from recursight.tasks.classification import Classification

TASK = Classification()
CANDIDATES = {
    "gru": {"layer": "gru", "hidden": 24},
    "conv": {"stem": {"conv": {"channels": [6]}}, "scan": "whole", "layer": "none"},
}


def project(root: Path, store: Path, seeds: list[int], candidates: dict[str, dict[str, object]]) -> Layout:
    """A project folder with a linked store and one bundle per candidate and seed."""
    layout = Layout(root)
    layout.artifacts.mkdir(parents=True)
    shutil.copytree(store, layout.store)
    (root / "dvc.yaml").write_text("stages: {}\n")
    layout.params.write_text(
        yaml.safe_dump(
            {
                "seeds": seeds,
                "execution": {"device": "cpu"},
                "evaluate": {"mistakes": 5},
                "compare": {"bootstrap_samples": 200},
                "candidates": candidates,
            }
        )
    )
    opened = open_store(layout.store)
    for name in candidates:
        histories = [train(layout, name, seed, opened) for seed in seeds]
        layout.history_plot(name).parent.mkdir(parents=True)
        pd.concat(histories).to_csv(layout.history_plot(name), index=False)
    return layout


def train(layout: Layout, name: str, seed: int, store: Store, steps: int = 40) -> pd.DataFrame:
    """A bundle after a few steps on one large batch; its history is returned with a column `seed`."""
    architecture = load(layout.params).candidate(name).architecture
    classes = TASK.vocabulary(store.targets)
    torch.set_num_threads(1)  # two would wait for each other where other work is going on
    torch.manual_seed(seed)
    model = assemble(
        architecture,
        input_shape=store.shape,
        outputs=len(classes),
        mean=store.mean,
        std=store.std,
    )
    rows = store.indices("train")[:256]
    images = torch.from_numpy(store.first_frames(rows))
    labels = torch.from_numpy(TASK.encode(store.examples.iloc[rows], store.targets_of(rows), classes))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    rows = []
    for step in range(steps):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 9:
            rows.append({"epoch": len(rows) + 1, "validation_loss": loss.item(), "validation_accuracy": step / steps})
    folder = layout.bundle(name, seed)
    save_bundle(
        folder,
        model,
        candidate=name,
        seed=seed,
        architecture=architecture,
        task={"name": "classification"},
        vocabulary=classes,
        outputs=len(classes),
        input_shape=list(store.shape),
        mean=list(store.mean),
        std=list(store.std),
        training={},
        training_digest=f"{name}-{seed}",
        data_digest=store.digest,
        best_epoch=len(rows),
    )
    history = pd.DataFrame(rows)
    history.to_csv(folder / "history.csv", index=False)
    recurrent = architecture["layer"] != "none"
    norms = (
        [{"layer": "0.gru", "state": "h", "step": step, "norm": 0.5**step} for step in range(8)] if recurrent else []
    )
    pd.DataFrame(norms).to_csv(folder / "gradient_norms.csv", index=False)
    write_json(folder / "training.json", {"seconds": 1.5 + seed, "images_per_second": 1000.0, "epochs": len(rows)})
    history.insert(0, "seed", seed)
    return history
