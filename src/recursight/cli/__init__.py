"""The command line: a table of commands. What they do stands in the library; imports wait until a command runs."""

import sys

import typer

from recursight.cli import data, doctor, gate, monitoring, operations, pipeline, registry, serving, stages
from recursight.errors import InputError

app = typer.Typer(
    name="recursight",
    help="Recurrent networks that see: prepare images, train many RNNs, compare them, keep the best in production.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (data, stages, pipeline, registry, gate, serving, monitoring, operations, doctor):
    group.add_to(app)


def main() -> None:
    """Runs a command. Bad input ends it with a sentence on stderr and status 2, Ctrl-C with status 130."""
    try:
        _enter_project()
        app()
    except InputError as error:
        for line in str(error).splitlines():
            typer.secho(f"recursight: {line}", err=True, fg="red")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _enter_project() -> None:
    """Inside a project, the servers that `recursight up` runs are found by every command and all that it starts."""
    from recursight import access
    from recursight.layout import Layout

    try:
        access.enter(Layout.find())
    except InputError:
        return  # not in a project: `--help` works everywhere
