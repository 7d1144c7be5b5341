"""Do both sides name the classes alike, and if not, is one of them off by one?"""

from dataclasses import dataclass

from resnet_ref.facts import Facts
from resnet_ref.weights_file import Weights


@dataclass(frozen=True)
class Labels:
    """Do both sides name the classes alike? cause: what explains it where they do not."""

    checked: bool
    departs: bool = False
    says: str = ""
    cause: tuple[str, str] | None = None


def check_labels(weights: Weights, facts: Facts) -> Labels:
    """Compare the names of the classes, and where they differ see whether they are off by one."""
    if weights.labels is None or facts.labels is None:
        return Labels(False, says="one side has no labels")
    ours, slims = tuple(weights.labels), tuple(facts.labels)
    if ours == slims:
        return Labels(True, says=f"{len(ours)} equal")
    count = min(len(ours), len(slims))
    at = next((i for i in range(count) if ours[i] != slims[i]), count)
    shown = [repr(names[at]) if at < len(names) else "nothing" for names in (ours, slims)]
    says = f"class {at} is {shown[0]} here, {shown[1]} for slim"
    for by in (1, -1):
        # Class i of ours is class i + by of slim's, wherever both exist.
        pairs = [(ours[i], slims[i + by]) for i in range(len(ours)) if 0 <= i + by < len(slims)]
        if len(pairs) >= count - 1 and pairs and all(a == b for a, b in pairs):
            found = f"class i here is slim's class i {'+' if by > 0 else '-'} 1: one of the two counts a background"
            return Labels(True, True, says, ("labels off by one", found))
    return Labels(True, True, says)
