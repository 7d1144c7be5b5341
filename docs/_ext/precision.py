"""```{precision-table} NAME```: a table of benchmarks/results/precision.json, one of TABLES."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from resnet_ref import tables

FIGURES = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "precision.json"
# What a reader asks for, by the key that the JSON has; MODELLED never ran on what it is a model of.
WAYS = {
    "tensorflow": "TensorFlow (slim), float32",
    "definition": "definition, float32",
    "eager": "cpu, layer by layer, float32",
    "direct": "cpu plan, `direct`",
    "auto": "cpu plan, `auto`",
    "fast": "cpu plan, `fast`",
    "F(2x2)": "cpu plan, F(2x2) wherever it can be",
    "F(4x4)": "cpu plan, F(4x4) wherever it can be",
    "bf16x6": "cpu plan, `bf16x6`",
    "bf16x3": "cpu plan, `bf16x3`",
    "bfloat16": "cpu plan, `bfloat16`",
    "tf32x3 model": "gpu, `tf32x3`, operands alone",
    "tf32x3 model, float32 sums": "gpu, `tf32x3`, with float32 sums",
    "tf32 model": "gpu, `tf32`",
    "bfloat16 model": "gpu, `bfloat16`",
}
MODELLED = "model"
SUMS = {
    "one by one": "one by one",
    "tile": "register tile",
    "pairwise": "two by two",
    "F(2x2)": "F(2x2)",
    "F(4x4)": "F(4x4)",
    "bf16x6": "bf16x6",
    "tf32x3": "tf32x3",
    "bf16x3": "bf16x3",
    "tf32": "tf32",
    "bfloat16": "bfloat16",
}
FLOAT32_SUMS = ("one by one", "tile", "pairwise", "F(2x2)", "F(4x4)")
DEPTH = ("conv1", "block1", "block2", "block3", "block4", "logits")


def scientific(number: float) -> str:
    """Two digits: 5.2e-7."""
    mantissa, exponent = f"{number:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def share(number: float) -> str:
    """Two decimals, or from 10 on two digits, with a comma among thousands."""
    return f"{number:.2f}" if number < 10 else f"{float(f'{number:.2g}'):,.0f}"


def label(way: str) -> str:
    """The way's name; a model's says that it is one."""
    return WAYS[way] + (" (model)" if MODELLED in way else "")


def depth(figures: dict[str, Any], network: str) -> list[list[str]]:
    """A network's errors from its first layer to its last."""
    rows = [["", *DEPTH, "median", "of what the rule allows"]]
    for way, errors in figures["networks"][network]["errors"].items():
        rule = share(errors["rule"]) if "rule" in errors else "-"
        rows.append([label(way), *(scientific(errors[point]) for point in (*DEPTH, "median")), rule])
    return rows


def added(figures: dict[str, Any], names: Sequence[str]) -> list[list[str]]:
    """Errors of sums of K products, with the prediction where there is one."""
    sums = figures["sums"]
    rows = [["K", *(SUMS[name] for name in names)]]
    for i, k in enumerate(sums["K"]):
        cells = []
        for name in names:
            expected = sums["predicted"].get(name)
            cells.append(scientific(sums["measured"][name][i]) + (f" ({scientific(expected[i])})" if expected else ""))
        rows.append([str(k), *cells])
    return rows


def decided(figures: dict[str, Any]) -> list[list[str]]:
    """What errors at the logits may change, and what they did."""
    networks, unseen = figures["networks"], figures["held out"]
    wide, digits = networks["resnet_v1_50"], networks["digits"]
    head = ["", "resnet_v1_50: room", f"changed, of {wide['images']}"]
    rows = [[*head, "digits: room", f"changed, of {digits['images']}", f"changed, of {unseen['images']} held out"]]
    for way in wide["errors"]:
        cells = []
        for network in (wide, digits):
            errors = network["errors"][way]
            cells += [share(network["least gap"] / (2 * errors["logits"])), str(errors["changed"])]
        rows.append([label(way), *cells, str(unseen["changed"][way]) if way in unseen["changed"] else "-"])
    return rows


def source(figures: dict[str, Any]) -> str:
    """What the figures were measured on."""
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items() if name != "resnet-ref")
    bf16 = "emulated on it" if figures["bf16"] == "emulated" else f"by its {figures['bf16']}"
    return (
        f"Measured by `benchmarks/precision.py` on one {figures['processor']} with {figures['isa']}, products of bf16 "
        f"{bf16}; python {figures['python']}, {versions}."
    )


TABLES = {
    "resnet_v1_50": lambda figures: depth(figures, "resnet_v1_50"),
    "digits": lambda figures: depth(figures, "digits"),
    "float32 sums": lambda figures: added(figures, FLOAT32_SUMS),
    "fewer bits": lambda figures: added(figures, [name for name in SUMS if name not in FLOAT32_SUMS]),
    "predictions": decided,
}
SOURCE = "source"


def markdown(name: str, figures: dict[str, Any]) -> str:
    """A table, or for SOURCE the sentence on where they all come from."""
    if name == SOURCE:
        return source(figures)
    head, *rows = TABLES[name](figures)
    return tables.markdown(head, rows)


class PrecisionTable(SphinxDirective):
    """The directive."""

    required_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """The table's nodes; the page is built again when the figures change."""
        name = self.arguments[0]
        if name not in (*TABLES, SOURCE):
            raise self.error(f"precision-table must be one of {', '.join(TABLES)} or {SOURCE}; got {name!r}")
        self.env.note_dependency(str(FIGURES))
        made = self.parse_text_to_nodes(markdown(name, json.loads(FIGURES.read_text())))
        for node in made:
            for table in node.findall(nodes.table):
                table["classes"].append("figures")
        return made


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx calls this."""
    app.add_directive("precision-table", PrecisionTable)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
