"""Commands: predictions by the champion."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from recursight.layout import Layout

PANEL = "Predictions"


def add_to(app: typer.Typer) -> None:
    for command in (predict, serve):
        app.command(rich_help_panel=PANEL)(command)


def predict(
    files: Annotated[list[Path], typer.Argument(help="Images, or one folder of them.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Score the folder into this parquet file.", show_default=False)
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Name unreadable images, and go on.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what the champion sees in image files, or in a whole folder.

    Images of another size or colour are fitted as `prepare` fits them. With --json, one line per image holds the
    probabilities of all classes. A folder is scored with all below it, whatever its size; stopped on the
    way, the same command goes on.

    Example: [bold]recursight predict scan-1.png scan-2.png[/]
    Example: [bold]recursight predict pictures --out predictions.parquet[/]
    """
    from recursight.errors import InputError
    from recursight.layout import Layout

    layout = Layout.find()
    if out is None:
        _predict_files(layout, files, as_json)
        return
    if len(files) != 1 or not files[0].is_dir():
        raise InputError("--out wants one folder: recursight predict FOLDER --out predictions.parquet")
    _score_folder(layout, files[0], out, skip_bad, as_json)


def _predict_files(layout: "Layout", files: list[Path], as_json: bool) -> None:
    from recursight.params import load
    from recursight.serving import PredictionLog, load_champion, predict_files, predictions

    settings = load(layout.params).serve
    champion = load_champion(layout)
    width = max(len(str(path)) for path in files)
    with PredictionLog(layout.predictions, rows=settings.log_rows, images=settings.log_images) as log:
        for paths, images, scores in predict_files(champion, files):
            log.record("predict", champion, images, scores, wait=True)
            for path, answer in zip(paths, predictions(champion.classes, scores), strict=True):
                if as_json:
                    line = {"file": str(path), "class": answer.label, "probability": answer.probability}
                    line |= {"probabilities": answer.probabilities, "model": champion.name, "version": champion.version}
                    typer.echo(json.dumps(line, ensure_ascii=False))
                else:
                    typer.echo(f"{path!s:<{width}}  {answer.label}  {answer.probability:.2%}")


def _score_folder(layout: "Layout", folder: Path, out: Path, skip_bad: bool, as_json: bool) -> None:
    from recursight.params import load
    from recursight.serving import PredictionLog, load_champion
    from recursight.serving.folder import score_folder
    from recursight.serving.listing import count_images
    from recursight.stages.progress import progress

    settings = load(layout.params).serve
    model = load_champion(layout)

    def name_bad(sentence: str) -> None:
        typer.secho(f"left out: {sentence}", err=True, fg="yellow")

    count = count_images(folder)
    # Of a large folder a random part: monitoring looks at the newest rows, and folders are often sorted by class.
    share = min(1.0, settings.log_folder_rows / max(count, 1))
    with (
        PredictionLog(layout.predictions, rows=settings.log_rows, images=settings.log_images) as log,
        progress(f"predict {folder}", count) as report,
    ):
        scored = score_folder(
            model,
            folder,
            out,
            skip=name_bad if skip_bad else None,
            report=report,
            found=lambda images, scores: log.record("predict", model, images, scores, share=share, wait=True),
        )
    if as_json:
        typer.echo(json.dumps({"out": str(out), **asdict(scored), "model": model.name, "version": model.version}))
        return
    typer.echo(f"{out}: {scored.rows:,} images by {model.name} version {model.version}", nl=False)
    earlier = f", {scored.resumed:,} of them by an earlier run" * bool(scored.resumed)
    typer.echo(earlier + f"; {scored.skipped:,} left out" * bool(scored.skipped))


def serve(
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at.", min=0, max=65535)] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A further name that clients may call it by; several times for several.", show_default=False),
    ] = None,
) -> None:
    """Answer over HTTP with the champion; a new champion takes over by itself.

    Limits and the log of predictions are set in params.yaml, section `serve`.

    Example: [bold]recursight serve --port 8080[/]
    """
    import logging

    from recursight.layout import Layout
    from recursight.serving.server import serve

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)

    def tell(url: str, model: Any) -> None:
        typer.echo(f"{model.name} version {model.version} answers at {url}/predict   (Ctrl-C ends it)")
        sys.stdout.flush()

    serve(Layout.find(), host=host, port=port, allowed_hosts=allow_host or (), started=tell)
