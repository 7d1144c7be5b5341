"""resnet-ref: the group of commands, and how it ends.

Exit status: 0 done; 1 the check that was asked for failed; 2 wrong use or input; 130 interrupted.
"""

import _thread
import errno
import importlib
import io
import logging
import os
import signal
import sys
import threading
import warnings
from glob import glob

import click

from resnet_ref.cli import begin
from resnet_ref.cli.options import echo_error
from resnet_ref.errors import ResnetRefError, VerificationError

COMMANDS = ("classify", "features", "convert", "export", "summary", "record", "verify", "trace", "bench", "devices")


class _Commands(click.Group):
    """Imports a command's file when it is asked for, so that --help does not wait for Numba."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"resnet_ref.cli.{name}")
        command: click.Command = getattr(module, name)
        begin()
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="resnet-ref")
def resnet_ref() -> None:
    """slim's ResNet v1 without a framework.

    \b
    resnet-ref classify photo.jpg --weights resnet_v1_50.h5
    resnet-ref convert resnet_v1_50_2016_08_28.tar.gz resnet_v1_50.h5
    resnet-ref summary --variant resnet_v1_101 --size 513 513 --output-stride 8
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit the process."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  whoever started us closed it
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):  # a terminal's encoding may lack what file names and labels have
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.filterwarnings("ignore", category=RuntimeWarning)  # NumPy's, with lines of our source
    logging.basicConfig(format="resnet-ref: %(message)s")
    # So that what is half written is removed on the way out.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.unraisablehook = _unraisable
    sys.exit(_run(arguments))


def _unraisable(ignored: "sys.UnraisableHookArgs") -> None:
    """Ctrl-C within a callback, which Python would drop, comes again once that has ended."""
    if isinstance(ignored.exc_value, KeyboardInterrupt):
        threading.Timer(0.01, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(ignored)


def _run(arguments: list[str] | None) -> int:
    try:
        status = _invoke(_typed() if arguments is None else arguments)
        sys.stdout.flush()
        return status
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else error.format_message())
        return 2
    except click.ClickException as error:
        return _fail(error.format_message(), 2)
    except VerificationError as error:
        return _fail(str(error), 1)
    except ResnetRefError as error:
        return _fail(str(error), 2)
    except MemoryError as error:
        what = f" ({error})" if str(error) else ""
        return _fail(f"not enough memory{what}; fewer images at a time, or smaller images or files, need less", 2)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", 130)
    except OSError as error:
        _discard_output()
        return 0 if _nobody_reads(error) else _fail(str(error), 2)


def _invoke(arguments: list[str]) -> int:
    """The command's status. Not click's own main(), which exits with 1 where nobody reads on."""
    try:
        with resnet_ref.make_context("resnet-ref", arguments) as context:
            status = resnet_ref.invoke(context)
            return status if isinstance(status, int) else 0
    except click.exceptions.Exit as ended:
        return ended.exit_code


def _nobody_reads(error: OSError) -> bool:
    """Whether the output's reader has left, which Windows calls an invalid argument, of no file."""
    windows = sys.platform == "win32" and error.errno == errno.EINVAL and error.filename is None
    return windows or isinstance(error, BrokenPipeError)


def _typed() -> list[str]:
    """The command line's words. Windows' shells leave it to the program to find the files of a pattern."""
    words = sys.argv[1:]
    if sys.platform != "win32":
        return words
    return [name for word in words for name in ([] if os.path.exists(word) else sorted(glob(word))) or [word]]


def _discard_output() -> None:
    """So that Python's last flush, of what nobody takes, does not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, status: int) -> int:
    echo_error(message)
    return status
