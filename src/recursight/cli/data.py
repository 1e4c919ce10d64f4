"""Commands for the raw images and clips."""

from pathlib import Path
from typing import Annotated, Any

import typer

group = typer.Typer(no_args_is_help=True, help="Import images or clips and inspect them.")


def add_to(app: typer.Typer) -> None:
    app.add_typer(group, name="data", rich_help_panel="Data")


@group.command("import")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder or archive of images or clips, or a data set: digits, moving-digits, moving-digits-events, "
            "mnist, fashion-mnist, kmnist, cifar10 (write ./mnist for a folder of that name)."
        ),
    ],
    given: Annotated[
        Path | None, typer.Option("--from", help="Folder with the data set's published files; nothing is downloaded.")
    ] = None,
    inner: Annotated[
        str | None, typer.Option("--folder", help="Folder inside the source, such as actions/clips.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Skip images or clips that cannot be used.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace data/ even if its current version could not be restored.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Replace data/ with other images or clips and add them to DVC.

    Accepts IDX files, a folder of images or clips (one sub-folder per class,
    optionally inside train/, val/ and test/), parquet as on Hugging Face, or a
    folder with manifest.csv, or with events.csv. data/ is replaced only if
    every image or clip is valid.

    Example: [bold]recursight data import ~/pictures/flowers[/]
    """
    from recursight import params
    from recursight.data.imports import import_data
    from recursight.data.obtaining import opened
    from recursight.layout import Layout
    from recursight.operations.events import data_changed
    from recursight.stages.prepare import progress_of

    layout = Layout.find()
    loaded = params.load(layout.params)
    settings = loaded.prepare
    with opened(source, layout, given, progress_of, inner) as folder, progress_of("import") as report:
        summary = import_data(
            layout,
            folder,
            validation=settings.validation,
            test=settings.test,
            strata=loaded.built_task.strata,
            skip_bad=skip_bad,
            force=force,
            progress=report,
        )
    data_changed(layout)
    if as_json:
        _print_json(summary)
        return
    _print_summary(summary)
    if loaded.task.name not in summary["tasks"]:
        print(f"params.yaml asks for {loaded.task.name}; set task: {summary['tasks'][0]}")
    print("data/ is replaced and added to DVC. To keep it: git add data.dvc .gitignore && git commit -m 'Data: ...'")
    print("To restore the previous version: git checkout data.dvc && dvc checkout data.dvc")


@group.command()
def show(
    out: Annotated[
        Path | None,
        typer.Option(help="PNG file for the contact sheet.", show_default="artifacts/contact-sheet.png"),
    ] = None,
    per_class: Annotated[
        int | None,
        typer.Option(min=1, max=100, help="Images or clips of each class.", show_default="10 images, or 2 clips"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Summarise data/ and draw a contact sheet; of clips, six frames each.

    Example: [bold]recursight data show --out sheet.png[/]
    """
    from recursight.data import clip_sheet, sheet
    from recursight.data.findings import Findings
    from recursight.data.readers import open_source
    from recursight.layout import Layout
    from recursight.stages.prepare import progress_of

    layout = Layout.find()
    layout.require_data()
    findings = Findings(open_source(layout.data))
    out = out or layout.artifacts / "contact-sheet.png"
    with progress_of("look") as report:
        if findings.source.clips:
            strips = clip_sheet.survey(findings, per_class or 2, report)
        else:
            sampler = sheet.survey(findings, per_class or 10, report)
    findings.refuse(skip_bad=True)
    if findings.source.clips:
        clip_sheet.draw(out, strips)
    else:
        sheet.draw(out, findings, sampler)
    summary = findings.summary() | {"sheet": str(out)}
    if as_json:
        _print_json(summary)
        return
    _print_summary(summary)
    print(f"Contact sheet: {out}")


def _print_json(summary: dict[str, Any]) -> None:
    import json

    print(json.dumps(summary, indent=2, ensure_ascii=False))


def _print_summary(summary: dict[str, Any]) -> None:
    """Prints a table of counts per class and split, and remarks."""
    from rich.console import Console
    from rich.table import Table

    splits = summary["splits"]
    table = Table("class", box=None, pad_edge=False)
    for split in splits:
        table.add_column(split, justify="right")
    for name in summary["classes"]:
        table.add_row(name, *(f"{counts[name]:,}" for counts in splits.values()))
    table.add_section()
    table.add_row("all", *(f"{sum(counts.values()):,}" for counts in splits.values()))
    Console(highlight=False).print(table)
    sizes = list(summary["sizes"].items())
    listed = ", ".join(f"{size} ({count:,})" for size, count in sizes[:5]) + (", ..." if len(sizes) > 5 else "")
    channels = ", ".join(f"{name} ({count:,})" for name, count in summary["channels"].items())
    noun = "clip" if summary["kind"] == "clips" else "image"
    print(f"{summary['count']:,} {noun}s from {summary['format']}; height×width {listed}; {channels}")
    if summary["kind"] == "clips":
        _print_clips(summary)
    _print_list(f"{noun}s were skipped because they cannot be used", summary["skipped"], len(summary["skipped"]))
    conflicts = [" = ".join(ids) for ids in summary["conflicts"]]
    _print_list(f"{noun}s have two or more labels", conflicts, summary["conflict_count"])
    ignored = summary["ignored"]
    _print_list(f"files are not {noun}s of this data set and were ignored", ignored, len(ignored))
    if len(sizes) > 1:
        size = sizes[0][0].replace("×", ", ")
        print(f"{noun.capitalize()}s differ in size: set prepare.size in params.yaml, such as size: [{size}]")
    if len(summary["channels"]) > 1:
        print(f"Some {noun}s are grey and some RGB: set prepare.channels in params.yaml to grey or rgb")


def _print_clips(summary: dict[str, Any]) -> None:
    """Prints lengths, rates, events and tasks."""
    frames, rates = summary["frames"], list(summary["rates"].items())
    print(
        f"{frames['total']:,} frames, {summary['seconds']:,} s; shortest clip {frames['shortest']:,} frames, median "
        f"{frames['median']:,.0f}, longest {frames['longest']:,}"
    )
    listed = ", ".join(f"{rate} ({count:,})" for rate, count in rates[:5]) + (", ..." if len(rates) > 5 else "")
    print(f"Frames per second: {listed}" + ("; set prepare.frames.rate in params.yaml" if len(rates) > 1 else ""))
    if summary["assumption"]:
        print(summary["assumption"])
    if summary["events"] is not None:
        print(f"{summary['events']:,} events; frames outside of them are background")
    if summary["too_short"]:
        print(f"{summary['too_short']:,} events are shorter than a frame and left out")
    print(f"Tasks that these data allow: {', '.join(summary['tasks'])}")


def _print_list(what: str, items: list[str], count: int, limit: int = 20) -> None:
    if not items:
        return
    print(f"{count:,} {what}:")
    for item in items[:limit]:
        print(f"  {item}")
    if count > limit:
        print(f"  ... and {count - limit:,} more")
