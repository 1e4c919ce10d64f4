"""The command line. Commands call the library; imports inside a command keep `--help` fast."""

import errno
import sys
from typing import NoReturn

import typer

from recursight import processes
from recursight.cli import data, doctor, gate, monitoring, operations, pipeline, registry, serving, stages
from recursight.errors import InputError
from recursight.terminal import printable

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
NOT_ACCESSIBLE = (errno.EACCES, errno.EPERM, errno.EROFS)

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
    """Runs a command.

    Exit status: 2 with a message on stderr for invalid input and for files that are not accessible, 1 with a message
    for a full disk, 130 for Ctrl-C.
    """
    processes.reduce_garbage_collection()
    try:
        _enter_project()
        app()
    except InputError as error:
        _exit(str(error), 2)
    except OSError as error:
        if error.errno not in DISK_FULL + NOT_ACCESSIBLE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        status = 1 if error.errno in DISK_FULL else 2
        _exit(f"{where}{error.strerror}. `recursight doctor` checks disks and permissions.", status)
    except KeyboardInterrupt:
        sys.exit(130)


def _exit(message: str, status: int) -> NoReturn:
    for line in message.splitlines():
        typer.secho(f"recursight: {printable(line)}", err=True, fg="red")
    sys.exit(status)


def _enter_project() -> None:
    """Inside a project, makes the servers of `recursight up` known to this command and its child processes."""
    from recursight import access
    from recursight.layout import Layout

    try:
        access.enter(Layout.find())
    except InputError:
        return  # outside a project: `--help` must still work
