"""A number's life as one HTML page, in which every value behind it that matters can be followed down to the pixels."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_ref.pages.picture import data_uri
from resnet_ref.pages.render import render, write
from resnet_ref.tracing.life import Input, Taps, as_map
from resnet_ref.tracing.receptive_field import receptive_field
from resnet_ref.tracing.text import place, sum_lines
from resnet_ref.tracing.web import Key, Web, key_of


def write_page(found: Web, pixels: NDArray[Any], path: str | os.PathLike[str]) -> None:
    """Write the page. pixels: what the network saw, [H, W, 3] of 0..255. DeviceError without the extra `pages`."""
    write(path, page(found, pixels))


def page(found: Web, pixels: NDArray[Any]) -> str:
    """The page as text."""
    root = next(iter(found.lives))
    return render(
        "trace.html.jinja",
        title=place(found.lives[root]),
        image=data_uri(pixels),
        height=pixels.shape[0],
        width=pixels.shape[1],
        # The root comes last, so that a rule of CSS can hide it while another is shown.
        nodes=[_node(found, key) for key in [*list(found.lives)[1:], root]],
    )


def _node(found: Web, key: Key) -> dict[str, Any]:
    life, user, taps = found.lives[key], found.users.get(key), found.lives[key].taps
    return {
        "id": _anchor(key),
        "title": place(life),
        "value": f"{life.value:.9g}",
        "shape": "x".join(map(str, as_map(life.step.output).shape[1:])),
        "user": None if user is None else {"href": f"#{_anchor(user)}", "title": place(found.lives[user])},
        "field": receptive_field(life.step, life.at),
        "is_pixel": life.step.op == "images",
        "taps": None if taps is None else list(_taps(taps)),
        "rate": 1 if taps is None else max(taps.rate),
        "columns": None if taps is None else list(_spaced([str(x) for x in taps.cols], taps.rate[1])),
        "taps_of": life.step.inputs[0].name if life.step.inputs else "",
        "inputs": [_input(found, one) for one in life.inputs],
        "count": life.count,
        "sums": list(sum_lines(life)),
    }


def _anchor(key: Key) -> str:
    number, (y, x, c) = key
    return f"s{number}-{y}-{x}-{c}"


def _input(found: Web, one: Input) -> dict[str, Any]:
    key = key_of(one.step, one.at)
    numbers = [f"{one.value:.7g}", *("" if n is None else f"{n:.7g}" for n in (one.weight, one.product))]
    return {
        "name": one.step.name,
        "at": one.at,
        "href": f"#{_anchor(key)}" if key in found else "",
        "numbers": numbers,
    }


def _spaced(cells: list[Any], rate: int) -> Iterator[Any]:
    """Between taps that stand apart, None for what is skipped."""
    for number, cell in enumerate(cells):
        if number and rate > 1:
            yield None
        yield cell


def _taps(taps: Taps) -> Iterator[dict[str, Any] | None]:
    """The rows of the grid of taps; None where rows are skipped."""
    largest = float(np.abs(taps.sums).max(initial=0)) or 1.0
    rows = []
    for y, sums, pads in zip(taps.rows, taps.sums, taps.padded, strict=True):
        cells = [
            {"text": "padding" if pad else f"{value:.4g}", "pad": bool(pad), "share": f"{abs(value) / largest:.2f}"}
            for value, pad in zip(sums, pads, strict=True)
        ]
        rows.append({"y": int(y), "cells": list(_spaced(cells, taps.rate[1]))})
    yield from _spaced(rows, taps.rate[0])
