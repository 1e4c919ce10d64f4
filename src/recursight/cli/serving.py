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
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out unreadable images, and list them.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the champion's answers for image files, or score a whole folder.

    Images of another size or colour are fitted as `prepare` fits them. With --json, one line per image holds the whole
    answer. A folder is scored with everything below it, whatever its size; to resume a stopped run, repeat the
    command.

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
    from recursight.serving import PredictionLog, load_champion, predict_files

    settings = load(layout.params).serve
    champion = load_champion(layout)
    width = max(len(str(path)) for path in files)
    with PredictionLog(layout.predictions, rows=settings.log_rows, images=settings.log_images) as log:
        for paths, images, answers in predict_files(champion, files):
            log.record("predict", champion, images, answers, wait=True)
            for path, answer in zip(paths, champion.task.present(answers, champion.vocabulary), strict=True):
                if as_json:
                    line = {"file": str(path), **answer, "model": champion.name, "version": champion.version}
                    typer.echo(json.dumps(line, ensure_ascii=False))
                else:
                    typer.echo(f"{path!s:<{width}}  {champion.task.line(answer)}")


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
    # Of a large folder a random part: monitoring looks at the newest rows, and folders are often sorted.
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
    typer.echo(earlier + f"; {scored.skipped:,} left out" * bool(scored.skipped))


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Another host name that clients may use; may be repeated.", show_default=False),
    ] = None,
) -> None:
    """Serve the champion over HTTP; a new champion takes over automatically.

    Limits and the log of predictions are set in params.yaml, section `serve`.

    Example: [bold]recursight serve --port 8080[/]
    """
    import logging

    from recursight.layout import Layout
    from recursight.serving.server import serve

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)

    def announce(url: str, model: Any) -> None:
        typer.echo(f"{model.name} version {model.version} answers at {url}/predict   (Ctrl-C ends it)")
        sys.stdout.flush()

    serve(Layout.find(), host=host, port=port, allowed_hosts=allow_host or (), started=announce)
