"""The command line: one file a command; every error is one line of stderr."""

from resnet_ref.cli.main import main

__all__ = ["main"]
