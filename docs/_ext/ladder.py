"""Puts the ladder of convolutions (kernels/conv2d/ladder) into pages, rung by rung, and what was measured of it.

A line `<!-- rungs: cpu -->` becomes a section for each rung: what its docstring says, its text, and the files of
production that it runs. `<!-- figures: cpu -->` becomes the tables of `resnet-ref bench --ladder` in
benchmarks/results/ladder_cpu*.json, and a chart of them. Both also for gpu, from the folders of gpu_check.py.
"""

import ast
import json
import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from resnet_ref.bench.ladder_report import NOTES, convolutions, machine, peak, tables
from resnet_ref.kernels.conv2d.ladder.rungs import GPU, Rung, ladder
from resnet_ref.pages.figures import INK, ONE, figure, svg
from resnet_ref.tables import markdown

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
KERNELS = "../../kernels"  # from the pages
_LINE = re.compile(r"^<!-- (rungs|figures): (cpu|gpu) -->$", re.MULTILINE)
NOT_MEASURED = (
    "Not measured yet: none of these rungs has run on a GPU. The tests run them on the CPU, and CUDA's compiler takes "
    "them for sm_80 and sm_90. Where there is a GPU, `python benchmarks/gpu_check.py` times them.\n"
)


def setup(app: Sphinx) -> dict[str, Any]:
    """As Sphinx calls it."""
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True}


def _fill(_: Sphinx, __: str, content: list[str]) -> None:
    made = {"rungs": rungs, "figures": figures}
    content[0] = _LINE.sub(lambda line: made[line[1]](line[2]), content[0])


def rungs(device: str) -> str:
    """A section for each rung."""
    return "\n".join(_section(number, rung, _taken(device, rung)) for number, rung in enumerate(ladder(device), 1))


def _taken(device: str, rung: Rung) -> str:
    """What the first of the measurements says of a rung."""
    if not (files := _files(device)):
        return ""
    _, rows = tables(json.loads(files[0].read_text()))[0]
    milliseconds, speed, share, gain, _ = next(cells for name, *cells in rows if name == rung.name)
    before = f", {gain} times as fast as the rung before" if gain and float(gain) >= 1 else ""
    before = f", {1 / float(gain):.2f} times slower than the rung before" if gain and not before else before
    return f"*{milliseconds} ms, {speed} GFLOP/s, {share} of the peak{before}.*\n"


def _section(number: int, rung: Rung, taken: str) -> str:
    folder = f"{KERNELS}/conv2d/ladder/{rung.device}"
    text = (rung.module.__doc__ or "").strip()
    shown = [_included(f"{folder}/{rung.file}.py", "python", after=text.splitlines()[-1])]
    if Path(rung.module.__file__ or "").with_suffix(".cu").is_file():
        shown.insert(0, _included(f"{folder}/{rung.file}.cu", "cuda"))
    below = [_folded(file) for file in rung.stands_on]
    return "\n".join([f"## {number}. {rung.name}", "", taken, text, "", *shown, *below])


def _included(path: str, language: str, after: str = "") -> str:
    """The file; after: what stands in its docstring's last line, which with all before it is left out."""
    options = [f":language: {language}", f":caption: {path.removeprefix('../../')}"]
    if after:
        options += [f":start-after: {after}", ":lines: 3-"]
    return "\n".join([f"```{{literalinclude}} {path}", *options, "```", ""])


def _folded(file: str) -> str:
    """What the file says of itself, and below it, folded, the whole."""
    is_python = file.endswith(".py")
    text = ast.get_docstring(ast.parse((ROOT / "kernels" / file).read_text("utf-8"))) if is_python else None
    said = f"**It runs `kernels/{file}`:**\n\n{text}\n\n" if text else ""
    included = _included(f"{KERNELS}/{file}", "python" if is_python else "cuda")
    return f"{said}:::{{dropdown}} All of kernels/{file}\n{included}:::\n"


def figures(device: str) -> str:
    """Tables and a chart of every file that there is."""
    return "\n".join("\n".join(_measured(path)) for path in _files(device)) or NOT_MEASURED


def _files(device: str) -> list[Path]:
    """One for each machine; a gpu's holds as many kinds of convolution as there was time for."""
    folders = RESULTS.glob(f"{device}_*/ladder/measured.json") if device == GPU else []
    return sorted([*RESULTS.glob(f"ladder_{device}*.json"), *folders])


def _measured(path: Path) -> Iterator[str]:
    data = json.loads(path.read_text())
    batch, height, width, _ = data["shape"]
    yield f"{data['network']['function']}, {height}x{width}, batch {batch}, {machine(data)}; {peak(data)}.\n"
    yield _chart(path.stem if path.parent == RESULTS else path.parents[1].name, data)
    overall, by_kind = tables(data)
    yield markdown(*overall, right=True)
    yield _shaded(data, *by_kind)
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items() if name != "resnet-ref")
    yield f"Medians. {' '.join(NOTES)} {versions}. `{data['command']}`\n"


def _shaded(data: dict[str, Any], header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table with each share's cell the darker the larger it is."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = []
    for kind, (name, count, *cells) in zip(data["kinds"], rows, strict=True):
        shares = [times["of_peak"] for times in kind["times"].values()]
        shaded = "".join(
            f'<td style="--share: {min(share, 1):.2f}">{cell}</td>' for share, cell in zip(shares, cells, strict=True)
        )
        body.append(f'<tr><th scope="row">{escape(name)}</th><td>{count}</td>{shaded}</tr>')
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return (
        f'```{{raw}} html\n<div class="shares" tabindex="0" role="region" aria-label="{header[0]}">{table}</div>\n```\n'
    )


def _chart(name: str, found: dict[str, Any]) -> str:
    """Each rung's time for all convolutions, on a logarithmic axis."""
    names = list(found["rungs"])
    taken = [1000 * found["rungs"][rung]["seconds"] for rung in names]
    with figure(7, 0.42 * len(names) + 0.7) as (made, axes):
        axes.barh(names, taken, color=ONE, height=0.6)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlim(min(taken) / 2, max(taken) * 4)
        axes.set_xlabel(f"ms for {convolutions(found)}, logarithmic")
        axes.grid(visible=False, axis="y")
        axes.set_axisbelow(True)
        for row, milliseconds in enumerate(taken):
            axes.text(milliseconds * 1.08, row, _number(milliseconds), va="center", color=INK)
        said = ", ".join(f"{rung} {_number(milliseconds)} ms" for rung, milliseconds in zip(names, taken, strict=True))
        drawn = svg(made, name, "The ladder: time of each rung", said)
    scroll = f'<div class="scroll" style="--width: 44rem">{drawn}</div>'
    return f'```{{raw}} html\n<figure class="kernel-picture">{scroll}</figure>\n```\n'


def _number(milliseconds: float) -> str:
    return f"{milliseconds:.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"
