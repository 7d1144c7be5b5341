"""What was found to be fastest, remembered on disk: which way for which kind of convolution."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from resnet_ref.kernels.vector import cache
from resnet_ref.kernels.vector.sources import KERNELS, sources_hash

SOURCES = (KERNELS, Path(__file__).parent)  # the kernels, the ways there are, and the plans that they were timed in


def remembered(about: object, kinds: Sequence[str], find: Callable[[], Mapping[str, str]]) -> Mapping[str, str]:
    """Kind of convolution -> the name of its way: as an earlier call found it, or as `find` does now.

    about: plain data, all that decides what is fastest besides the kinds and the sources. Damaged or foreign entries
    are made anew.
    """
    everything = json.dumps([sources_hash(*SOURCES), about, kinds])
    key = f"choices-{hashlib.sha256(everything.encode()).hexdigest()[:32]}"
    known = _read(key, kinds)
    if known is None:
        known = find()
        cache.write(key, json.dumps(known).encode())
    return known


def _read(key: str, kinds: Sequence[str]) -> Mapping[str, str] | None:
    try:
        known = json.loads(cache.read(key) or b"")
    except ValueError:
        return None
    is_ours = isinstance(known, dict) and set(known) == set(kinds) and all(isinstance(n, str) for n in known.values())
    return known if is_ours else None
