"""Commands for predictions by the champion."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recursight.terminal import printable

if TYPE_CHECKING:
    from recursight.layout import Layout

PANEL = "Predictions"


def add_to(app: typer.Typer) -> None:
    for command in (predict, serve):
        app.command(rich_help_panel=PANEL)(command)


def predict(
    files: Annotated[list[Path], typer.Argument(help="Image files, or one folder.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Write the predictions for a folder to this parquet file.", show_default=False)
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="List and skip unreadable images.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Predict images, or a whole folder of them, with the champion.

    Images of another size or colour mode are converted as `prepare` converts
    them. With --json, each image is a line with its whole answer. A folder
    includes its sub-folders. To resume a killed run, repeat the command.

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
        raise InputError("--out needs one folder: recursight predict FOLDER --out predictions.parquet")
    _score_folder(layout, files[0], out, skip_bad, as_json)


def _predict_files(layout: "Layout", files: list[Path], as_json: bool) -> None:
    from recursight.params import load
    from recursight.serving.champion import load_champion, predict_files
    from recursight.serving.prediction_log import PredictionLog

    settings = load(layout.params).serve
    champion = load_champion(layout)
    width = max(len(str(path)) for path in files)
    with PredictionLog(layout.predictions, rows=settings.log_rows, images=settings.log_images) as log:
        for paths, images, answers in predict_files(champion, files):
            log.record("predict", champion, images, answers, wait=True)
            for path, answer in zip(paths, champion.task.present(answers, champion.vocabulary), strict=True):
                if as_json:
                    line = {"file": printable(str(path)), **answer, "model": champion.name, "version": champion.version}
                    typer.echo(json.dumps(line, ensure_ascii=False))
                else:
                    typer.echo(printable(f"{path!s:<{width}}  {champion.task.line(answer)}"))


def _score_folder(layout: "Layout", folder: Path, out: Path, skip_bad: bool, as_json: bool) -> None:
    from recursight.params import load
    from recursight.progress import progress
    from recursight.serving.champion import load_champion
    from recursight.serving.folder import score_folder
    from recursight.serving.listing import count_images
    from recursight.serving.prediction_log import PredictionLog

    settings = load(layout.params).serve
    model = load_champion(layout)

    def name_bad(sentence: str) -> None:
        typer.secho(f"skipped: {printable(sentence)}", err=True, fg="yellow")

    count = count_images(folder)
    # A random sample of a large folder: monitoring reads the newest rows, and folders are often sorted.
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
            found=lambda images, answers: log.record("predict", model, images, answers, share=share, wait=True),
        )
    if as_json:
        typer.echo(json.dumps({"out": str(out), **asdict(scored), "model": model.name, "version": model.version}))
        return
    typer.echo(f"{out}: {scored.rows:,} images by {model.name} version {model.version}", nl=False)
    earlier = f", {scored.resumed:,} of them by an earlier run" * bool(scored.resumed)
    typer.echo(earlier + f"; {scored.skipped:,} skipped" * bool(scored.skipped))


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Accept this host name too; may be repeated.", show_default=False),
    ] = None,
) -> None:
    """Serve the champion over HTTP; switches to a new champion automatically.

    The section `serve` of params.yaml sets the limits and the prediction log.

    Example: [bold]recursight serve --port 8080[/]
    """
    import logging

    from recursight.layout import Layout
    from recursight.serving.server import serve

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)

    def announce(url: str, model: Any) -> None:
        typer.echo(f"{model.name} version {model.version} is served at {url}/predict   (stop with Ctrl-C)")
        sys.stdout.flush()

    serve(Layout.find(), host=host, port=port, allowed_hosts=allow_host or (), started=announce)
