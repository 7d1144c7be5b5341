"""Hypotheses about single variables. A recording holds a SHA-256 of each variable that slim ran with, which says which
of ours differ; what they should be is then looked for among their transposes and the other variables, and run."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_ref.recording import Recording, digest
from resnet_ref.verification.comparison import Comparison, rescoped, scope_of
from resnet_ref.verification.diagnosis import Cause
from resnet_ref.verification.hypotheses import Hypothesis
from resnet_ref.verification.setup import Setup

Array = NDArray[Any]
# What a convolution's weights [KH, KW, C, F] may have become; each gives slim's back where it did.
TRANSFORMS: dict[str, Callable[[Array], Array]] = {
    "height and width swapped": lambda w: w.transpose(1, 0, 2, 3),
    "inputs and outputs swapped": lambda w: w.transpose(0, 1, 3, 2),
    "turned by 180 degrees": lambda w: w[::-1, ::-1],
    "rows reversed": lambda w: w[::-1],
    "columns reversed": lambda w: w[:, ::-1],
    "input channels reversed": lambda w: w[:, :, ::-1],
    "output channels reversed": lambda w: w[..., ::-1],
    "all axes reversed": lambda w: w.transpose(3, 2, 1, 0),
    "PyTorch's order of axes taken for slim's": lambda w: w.reshape(w.shape[::-1]).transpose(2, 3, 1, 0),
}
_MOST_DAMAGED = 8


def differing(setup: Setup, recording: Recording) -> dict[str, str]:
    """Our variables that are not bit for bit those slim ran with: name -> SHA-256 of slim's."""
    ours, slims = setup.network.scope, scope_of(recording.end_points)
    found = {}
    for slims_name, entry in recording.facts.variables.items():
        name = rescoped(slims_name, slims, ours)
        if name in setup.variables and digest(np.asarray(setup.variables[name], np.float32)) != entry["sha256"]:
            found[name] = entry["sha256"]
    return found


def exchanged(setup: Setup, recording: Recording, wrong: Mapping[str, str]) -> Iterator[Hypothesis]:
    """What may be wrong with variables that differ from slim's, where a SHA-256 tells what they are or should be."""
    moved = _moved(setup.variables, wrong)
    if moved:
        arrays = {name: setup.variables[other] for name, other in moved.items()}
        says = f"what belongs there stands elsewhere here: {_shown(moved, 'should hold what', 'holds')}"
        yield Hypothesis("scope", "weights of another scope", says, partial(_with_variables, changed=arrays))
    if (copied := _copied(setup, recording, wrong)) and (given := _outputs(setup, recording, copied)):
        says = f"{_shown(copied, 'holds what slim has in', '')}; given slim's own output there, the rest agrees"
        yield Hypothesis("scope", "weights of another scope", says, partial(_with_outputs, given=given))
    turned = _transformed(setup.variables, {n: sha for n, sha in wrong.items() if n not in moved})
    for how in TRANSFORMS:
        arrays = {name: array for name, (kind, array) in turned.items() if kind == how}
        if arrays:
            more = f" and {len(arrays) - 2} more" if len(arrays) > 2 else ""
            says = f"in {', '.join(list(arrays)[:2])}{more}"
            yield Hypothesis("transposed", f"transposed weights: {how}", says, partial(_with_variables, changed=arrays))


def damaged(setup: Setup, recording: Recording, wrong: Mapping[str, str], first: str) -> Iterator[Hypothesis]:
    """What else may be wrong with variables that differ from slim's. `first`: the first end point that departs.

    Weights that went through another precision have no SHA-256 to find them by: every transform is tried, of the
    first layer that departs, and of all. Then slim's own outputs stand in for the layers whose variables differ.
    """
    if wrong:
        for how in TRANSFORMS:
            name = f"transposed weights: {how}"
            yield Hypothesis("transposed", name, f"in {first}", partial(_turned, how=how, only=first))
            yield Hypothesis("transposed", name, "in every convolution", partial(_turned, how=how, only=None))
    layers = sorted({_layer(name) for name in wrong})
    if len(layers) <= _MOST_DAMAGED and (given := _outputs(setup, recording, wrong)):
        says = "other variables than slim ran with; given slim's own output there, the rest agrees"
        name = f"damaged weights in {', '.join(layers)}"
        yield Hypothesis("damage", name, says, partial(_with_outputs, given=given))


def damaged_in_sample(wrong: Mapping[str, str], found: Comparison) -> Cause | None:
    """Of a sampled recording, whose outputs cannot stand in for a layer: the first layer that departs, where its
    variables are not slim's and everything before it agrees."""
    first = None if found.first is None else found.rows[found.first].name
    layers = sorted({_layer(name) for name in wrong})
    if first not in layers:
        return None
    says = "its variables are not those slim ran with, and every end point before it agrees"
    others = f"; so differ those of {len(layers) - 1} other layers" if len(layers) > 1 else ""
    return Cause("damage", f"damaged weights in {first}", says + others, math.inf)


def _moved(variables: Mapping[str, Array], wrong: Mapping[str, str]) -> dict[str, str]:
    """Name -> the variable that holds what belongs there."""
    holders = {digest(np.asarray(array, np.float32)): name for name, array in variables.items()}
    return {name: holders[sha] for name, sha in wrong.items() if sha in holders}


def _copied(setup: Setup, recording: Recording, wrong: Mapping[str, str]) -> dict[str, str]:
    """Name -> the other variable of slim's that it holds."""
    slims = {entry["sha256"]: name for name, entry in recording.facts.variables.items()}
    ours = {name: digest(np.asarray(setup.variables[name], np.float32)) for name in wrong}
    return {name: slims[sha] for name, sha in ours.items() if sha in slims}


def _transformed(variables: Mapping[str, Array], wrong: Mapping[str, str]) -> dict[str, tuple[str, Array]]:
    """Name -> which transform gives slim's weights back, and these."""
    found = {}
    for name, sha in wrong.items():
        for how, array in _transforms(variables[name]):
            if digest(array) == sha:
                found[name] = (how, array)
                break
    return found


def _transforms(weights: Array) -> Iterator[tuple[str, Array]]:
    for how in TRANSFORMS:
        array = _transform(weights, how)
        if array is not None:
            yield how, array


def _transform(weights: Array, how: str) -> Array | None:
    """The weights transformed; None where that changes their shape, or nothing."""
    if weights.ndim != 4:
        return None
    array = np.ascontiguousarray(TRANSFORMS[how](weights), np.float32)
    return array if array.shape == weights.shape and not np.array_equal(array, weights) else None


def _turned(setup: Setup, how: str, only: str | None) -> Setup:
    names = [name for name in setup.variables if only is None or _layer(name) == only]
    arrays = {name: _transform(setup.variables[name], how) for name in names}
    return _with_variables(setup, {name: array for name, array in arrays.items() if array is not None})


def _outputs(setup: Setup, recording: Recording, names: Iterable[str]) -> dict[str, Array]:
    """What slim's layers with these variables gave, by our scope.

    None where the recording is a sample, and none for most of a network: what is given agrees, and would prove nothing.
    """
    slims = scope_of(recording.end_points)
    found: dict[str, Array] = {}
    layers = {_layer(name) for name in names}
    if 2 * len(layers) > len({_layer(name) for name in setup.variables}):
        return found
    for layer in layers:
        recorded = rescoped(layer, setup.network.scope, slims)
        if recording.facts.sample is None and recorded in recording.end_points:
            found[layer] = recording.read(recorded).values.reshape(recording.end_points[recorded])
    return found


def _layer(name: str) -> str:
    """The scope of the convolution that a variable belongs to."""
    return name.rpartition("/")[0].removesuffix("/BatchNorm")


def _with_variables(setup: Setup, changed: Mapping[str, Array]) -> Setup:
    return replace(setup, variables={**setup.variables, **changed})


def _with_outputs(setup: Setup, given: Mapping[str, Array]) -> Setup:
    return replace(setup, given={**setup.given, **given})


def _shown(pairs: Mapping[str, str], between: str, after: str) -> str:
    name, other = next(iter(pairs.items()))
    more = f" (and {len(pairs) - 1} more)" if len(pairs) > 1 else ""
    return " ".join(part for part in (name, between, other, after) if part) + more
