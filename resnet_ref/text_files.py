"""Reads small files of text that a user names: labels, and JSON."""

import json
from pathlib import Path
from typing import Any

from resnet_ref.errors import WeightsError

MOST_BYTES = 1 << 24  # many times the largest that is meant; keeps a wrong path (a checkpoint, a video) from being read


def read_text(path: Path, what: str) -> str:
    """A file of UTF-8; what: as errors call it. WeightsError, also for a pipe or device, which is not opened."""
    try:
        if not path.is_file():
            got = "a directory, pipe or device" if path.exists() else "no such file"
            raise wrong(path, what, got, "check the path")
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise wrong(path, f"at most {MOST_BYTES:,} bytes", f"{size:,}", f"name {what}")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise wrong(path, "UTF-8 text", f"bytes that are not at {error.start}", "save the file as UTF-8") from error
    except OSError as error:
        raise wrong(path, what, error.strerror or str(error), "check the path and its permissions") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file; WeightsError."""
    what = "a file of one JSON object"
    text = read_text(path, what)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise wrong(path, what, f"no JSON ({error})", "check it with `python -m json.tool`") from None
    if not isinstance(data, dict):
        raise wrong(path, what, type(data).__name__, 'write it as {"name": ...}')
    return data


def wrong(path: Path, expected: str, got: str, advice: str) -> WeightsError:
    """What is said of such a file."""
    return WeightsError(" ".join(f"{path}: expected {expected}, got {got}; {advice}".splitlines()))
