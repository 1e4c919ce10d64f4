"""The model card: what a model is, how good, and what it is not for (Mitchell et al., 2019, arXiv:1810.03993)."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from recursight.files import read_json
from recursight.layout import Layout
from recursight.markdown import table
from recursight.params import Params
from recursight.params.experiment import in_words
from recursight.tracking.results import Result, source_digest

if TYPE_CHECKING:
    from pandas import DataFrame


def model_card(
    layout: Layout,
    params: Params,
    result: Result,
    rows: "DataFrame",
    fields: Iterable[str],
    latency: Mapping[str, Any],
) -> str:
    """The card as Markdown.

    Args:
        layout: of the project.
        params: of the project.
        result: an evaluated training.
        rows: its scores on the test split, from `Task.score`.
        fields: names of the fields of an answer.
        latency: of the exported network, from `export_bundle`.
    """
    card, task = result.card, params.built_task
    sections = {
        "Data": _data(layout, card),
        "Architecture": _architecture(card, result.training),
        "Metrics": _metrics(params, {**result.metrics, **latency}),
        **task.card(rows),
        "Limits": "\n".join(f"- {line}" for line in (*_limits(card), *task.limits(rows))),
        "How to call it": _call(params.registry.model_name, card, fields),
    }
    title = f"# {card['candidate']}, seed {card['seed']}\n\nA model for {card['task']['name']}, made with recursight."
    return "\n\n".join([title, *(f"## {heading}\n\n{body}" for heading, body in sections.items())]) + "\n"


def _data(layout: Layout, card: dict[str, Any]) -> str:
    height, width, channels = card["input_shape"]
    lines = [
        f"- Images: {height}×{width} pixels, {'grey' if channels == 1 else 'RGB'}.",
        *[f"- Vocabulary: {len(card['vocabulary']):,}."] * bool(card["vocabulary"]),
        f"- Digest of the store: `{card['data_digest']}`.",
    ]
    raw = source_digest(layout, card["data_digest"])
    if raw:
        lines.append(f"- DVC's MD5 of the raw data: `{raw}`.")
        splits = read_json(layout.store / "store.json").get("splits", {})
        counts = ", ".join(f"{split} {count:,}" for split, count in splits.items())
        lines.append(f"- Examples per split: {counts}.")
    return "\n".join(lines)


def _architecture(card: dict[str, Any], training: dict[str, Any]) -> str:
    settings = {key: value for key, value in card["architecture"].items() if value not in ({}, "none", False, 0)}
    parts = ", ".join(f"{key} {_plain(value)}" for key, value in settings.items())
    return "\n".join(
        [
            f"- {parts[0].upper()}{parts[1:]}.",
            f"- {card['parameters']:,} trainable values.",
            f"- Trained for {training['epochs']} epochs ({training['seconds']:.1f} s on {training['device']}); "
            f"weights of epoch {card['best_epoch']}, the best on validation.",
            f"- Git commit: `{training.get('git_commit') or 'none'}`.",
        ]
    )


def _metrics(params: Params, measured: dict[str, Any]) -> str:
    splits, default = ("validation", "test"), params.built_task.default
    rows = [["examples", *(f"{measured[split]['count']:,}" for split in splits)]]
    for metric in params.built_task.metrics.values():
        cells = [metric.text(measured[split][metric.name]) for split in splits]
        title = metric.title
        if metric.name == default.name:
            title = f"{title} ({params.evaluate.confidence:.0%} interval)"
            ends = [
                [metric.text(measured[split][f"{metric.name}_{end}"]) for end in ("low", "high")] for split in splits
            ]
            cells = [f"{cell} ({low} to {high})" for cell, (low, high) in zip(cells, ends, strict=True)]
        rows.append([title, *cells])
    return "\n\n".join(
        [
            table(["", *splits], rows),
            "Validation chose this model; the test split had no influence on the choice. As exported, it answers one "
            f"image in {measured['latency_ms']:.2f} ms ({measured['latency_on']}); the network itself answers "
            f"{measured['throughput']:,.0f} images/s in batches on {measured['device']}.",
        ]
    )


def _limits(card: dict[str, Any]) -> list[str]:
    height, width, channels = card["input_shape"]
    return [
        f"It expects images of {height}×{width} pixels with {channels} channel{'s' * (channels > 1)}. It answers "
        "whatever the image shows.",
        "The figures hold for images like those of the test split; other cameras, fonts or framings were not tested.",
    ]


def _call(name: str, card: dict[str, Any], fields: Iterable[str]) -> str:
    height, width, channels = card["input_shape"]
    return f"""```sh
recursight predict IMAGE.png                       # decodes, resizes, prints the answer
mlflow models serve -m models:/{name}@champion --env-manager local --port 5001
curl http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' -d '{{"inputs": [...]}}'
```

`inputs` is a nested list of raw uint8 values, N × {height} × {width} × {channels}, for any N. An answer has the fields
{", ".join(f"`{field}`" for field in fields)}. Normalisation is part of the model."""


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return in_words(value)
    return " → ".join(str(item) for item in value) if isinstance(value, list) else str(value)
