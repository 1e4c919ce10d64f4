"""The model card: what a model is, how good, and what it is not for (Mitchell et al., 2019, arXiv:1810.03993)."""

import csv
from collections.abc import Iterable, Sequence
from typing import Any

from recursight.files import read_json
from recursight.layout import Layout
from recursight.params import Params
from recursight.params.experiment import in_words
from recursight.tracking.results import Result, source_digest

MOST_CLASSES = 20  # a larger confusion matrix is a picture on the run, not a table to read


def model_card(layout: Layout, params: Params, result: Result) -> str:
    """Markdown, from the files of an evaluated result."""
    card, metrics = result.card, result.metrics
    sections = {
        "Data": _data(layout, card),
        "Architecture": _architecture(card, result.training),
        "Metrics": _metrics(metrics, params.evaluate.confidence, params.evaluate.top_k),
        "Classes": _classes(result),
        "Confusion matrix (test split)": _confusion(result),
        "Limits": _limits(result),
        "How to call it": _call(params.registry.model_name, card),
    }
    title = f"# {card['candidate']}, seed {card['seed']}\n\nAn image classifier made with recursight."
    return "\n\n".join([title, *(f"## {heading}\n\n{body}" for heading, body in sections.items())]) + "\n"


def worst_class(result: Result) -> tuple[float, str]:
    """The lowest recall on the test split, and whose it is; a class that is not in the split has none."""
    header, *rows = _rows(result, "per_class.csv")
    recalls = [(row[header.index("recall")], row[0]) for row in rows]
    return min((float(recall), name) for recall, name in recalls if recall)


def _data(layout: Layout, card: dict[str, Any]) -> str:
    height, width, channels = card["input_shape"]
    lines = [
        f"- Images: {height}×{width} pixels, {'grey' if channels == 1 else 'RGB'}, {len(card['classes'])} classes.",
        f"- Digest of the store: `{card['data_digest']}`.",
    ]
    raw = source_digest(layout, card["data_digest"])
    if raw:
        lines.append(f"- DVC's MD5 of the raw data: `{raw}`.")
        splits = read_json(layout.store / "store.json").get("splits", {})
        counts = ", ".join(f"{split} {part['count']:,}" for split, part in splits.items())
        lines.append(f"- Images per split: {counts}.")
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


def _metrics(metrics: dict[str, Any], confidence: float, top_k: int) -> str:
    names = {
        "macro_f1": "macro F1",
        "log_loss": "log loss",
        "top_k_accuracy": f"top-{top_k} accuracy",
        "calibration_error": "calibration error",
    }
    splits = ("validation", "test")
    accuracy = [
        "{accuracy:.2%} ({accuracy_low:.2%} to {accuracy_high:.2%})".format_map(metrics[split]) for split in splits
    ]
    rows: list[list[str]] = [
        ["images", *(f"{metrics[split]['count']:,}" for split in splits)],
        [f"accuracy ({confidence:.0%} interval)", *accuracy],
        *([name, *(f"{metrics[split][key]:.4f}" for split in splits)] for key, name in names.items()),
    ]
    speed = f"One image takes {metrics['latency_ms']:.2f} ms; in batches, {metrics['throughput']:,.0f} images/s."
    return _table(["", *splits], rows) + f"\n\nValidation chose this model; test had no say in it. {speed}"


def _classes(result: Result) -> str:
    header, *rows = _rows(result, "per_class.csv")
    body = [[_escape(name), *map(_score, values), count] for name, *values, count in rows]
    return _table(header, body)


def _score(text: str) -> str:
    """A class that was never predicted has no precision: its field in per_class.csv is empty."""
    return f"{float(text):.4f}" if text else "–"


def _confusion(result: Result) -> str:
    header, *rows = _rows(result, "confusion.csv")
    if len(rows) > MOST_CLASSES:
        return f"{len(rows)} classes: see `evaluation/confusion.png` on the run."
    body = [[f"**{_escape(name)}**", *counts] for name, *counts in rows]
    return _table(["actual ↓ predicted →", *map(_escape, header[1:])], body)


def _limits(result: Result) -> str:
    recall, worst = worst_class(result)
    (_, *names), *rows = _rows(result, "confusion.csv")
    pairs = [
        (int(count), actual, predicted)
        for actual, *counts in rows
        for predicted, count in zip(names, counts, strict=True)
        if predicted != actual
    ]
    count, actual, predicted = max(pairs)
    height, width, channels = result.card["input_shape"]
    lines = [
        f"- It takes images of {height}×{width} pixels with {channels} channel{'s' * (channels > 1)}, and answers with "
        "one of its classes whatever the image shows.",
        "- The figures hold for images like those of the test split; other cameras, fonts or framings were not tested.",
        f"- Worst class: {_escape(worst)}, of which it finds {recall:.2%}.",
    ]
    if count:
        lines.append(
            f"- Most frequent confusion: {_escape(actual)} taken for {_escape(predicted)}, {count} "
            f"time{'s' * (count > 1)} on the test split."
        )
    error = result.metrics["test"]["calibration_error"]
    lines.append(f"- Probabilities are off by {error:.2%} on average (expected calibration error, test split).")
    return "\n".join(lines)


def _call(name: str, card: dict[str, Any]) -> str:
    height, width, channels = card["input_shape"]
    return f"""```sh
recursight predict IMAGE.png                       # decodes, fits the size, prints class and probability
mlflow models serve -m models:/{name}@champion --env-manager local --port 5001
curl http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' -d '{{"inputs": [...]}}'
```

`inputs` is a nested list of raw uint8 values, N × {height} × {width} × {channels}, for any N. Each image gets a
`class`, its `probability`, and the `probabilities` of all classes. Normalisation is inside."""


def _rows(result: Result, name: str) -> list[list[str]]:
    """A table of the evaluation, its header first."""
    assert result.evaluation is not None
    with (result.evaluation / name).open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return in_words(value)
    return " → ".join(str(item) for item in value) if isinstance(value, list) else str(value)


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
