"""The command that lists problems and how to fix them."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from recursight.cli.pipeline import PREFECT_DEFAULTS
from recursight.terminal import printable

if TYPE_CHECKING:
    from recursight.operations.doctor import Finding

PANEL = "Operation"
COLOURS = {"ok": "green", "note": "yellow", "fix": "bold red"}
INDENT = 16


def add_to(app: typer.Typer) -> None:
    app.command(rich_help_panel=PANEL)(doctor)


def doctor(
    fix: Annotated[
        bool, typer.Option("--fix", help="First clean up what killed processes left: processes, runs, files.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """List problems with versions, device, data, remote, servers, disk, and leftovers of killed processes.

    Each problem is followed by the command that fixes it. The exit status is 1
    if there is a problem, else 0.

    Example: [bold]recursight doctor --fix[/]
    """
    from recursight.errors import InputError
    from recursight.layout import Layout
    from recursight.operations import doctor as checks

    try:
        layout = Layout.find()
    except InputError:
        layout = None
    if fix and layout:
        for name, value in PREFECT_DEFAULTS.items():
            os.environ.setdefault(name, value)
        removed, refused = checks.clear(layout)
        for each in removed:
            typer.echo(printable(f"removed: {each.kind} {each.what}"), err=as_json)
        for sentence in refused:
            typer.echo(f"recursight: {sentence}", err=True)
    found = checks.examine(layout)
    if as_json:
        import json
        from dataclasses import asdict

        print(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        _print(found)
    raise typer.Exit(int(any(finding.state == "fix" for finding in found)))


def _print(found: "list[Finding]") -> None:
    """Prints one line per finding, wrapped to the terminal; commands are not wrapped, so that they can be copied."""
    import textwrap

    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for finding in found:
        first, *rest = textwrap.wrap(
            printable(finding.what), max(20, console.width - INDENT), break_on_hyphens=False
        ) or [""]
        line = Text(f"{finding.state:<6}", COLOURS[finding.state]) + Text(f"{finding.area:<10}{first}", "default")
        for text in (line, *(Text(" " * INDENT + each) for each in rest)):
            console.print(text, soft_wrap=True)
        for command in finding.commands:
            console.print(Text(f"{' ' * INDENT}$ ") + Text(command, "bold"), soft_wrap=True)
    count = sum(finding.state == "fix" for finding in found)
    console.print(f"\n{count} to fix." if count else "\nNothing to fix.")
