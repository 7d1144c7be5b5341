"""Says in words how two sets of named shapes differ: those that are there, and those that a network expects."""

from collections.abc import Mapping, Sequence

SHOWN = 5

Shapes = Mapping[str, tuple[int, ...]]


def differences(found: Shapes, expected: Shapes, hints: Mapping[str, str] | None = None) -> list[str]:
    """What is missing (with its hint, if it has one), then what is not expected or has another shape."""
    hints = hints or {}
    missing = [name for name in expected if name not in found]
    problems = [f"{name} {list(expected[name])} is missing{hints.get(name, '')}" for name in missing]
    for name, shape in found.items():
        if name not in expected:
            problems.append(f"{name} {list(shape)} is not a variable of the network")
        elif shape != expected[name]:
            problems.append(f"{name} has shape {list(shape)}, expected {list(expected[name])}")
    return problems


def listed(problems: Sequence[str]) -> str:
    """The first SHOWN problems in one line, and how many more there are."""
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return "; ".join(problems[:SHOWN]) + more
