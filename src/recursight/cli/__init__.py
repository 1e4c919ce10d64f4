"""The command line. Commands call the library; imports inside a command keep `--help` fast."""

import sys

import typer

from recursight import processes
from recursight.cli import data, doctor, gate, monitoring, operations, pipeline, registry, serving, stages
from recursight.errors import InputError

app = typer.Typer(
    name="recursight",
    help="Train recurrent image classifiers, compare them, and keep the best one in production.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (data, stages, pipeline, registry, gate, serving, monitoring, operations, doctor):
    group.add_to(app)


def main() -> None:
    """Runs a command. Invalid input ends with a message on stderr and exit status 2, Ctrl-C with status 130."""
    processes.reduce_garbage_collection()
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
    """Inside a project, makes the servers of `recursight up` known to this command and its child processes."""
    from recursight import access
    from recursight.layout import Layout

    try:
        access.enter(Layout.find())
    except InputError:
        return  # outside a project: `--help` must still work
