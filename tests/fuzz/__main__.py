"""python -m fuzz TARGET [--runs N | --seconds S] [CORPUS_DIR], in the folder tests/: see README.md."""

import argparse
import hashlib
import importlib
import pkgutil
import sys
import tempfile
import time
from pathlib import Path

from fuzz import targets
from fuzz.mutate import mutations

_MOST_LENGTH = 1 << 14
_BATCH = 1000


def main() -> None:
    names = sorted(module.name for module in pkgutil.iter_modules(targets.__path__))
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("target", choices=names)
    bounds = parser.add_mutually_exclusive_group()
    bounds.add_argument("--runs", type=int, help="how many inputs; without a bound: until something is found")
    bounds.add_argument("--seconds", type=int)
    parser.add_argument("corpus", nargs="?", type=Path, help="where inputs that reach new code are kept")
    asked = parser.parse_intermixed_args()
    try:
        import atheris
    except ImportError:
        print("atheris is not installed: mutations that no coverage guides", file=sys.stderr)
        _unguided(asked)
        return
    codecs = ["PIL"] if asked.target == "images" else []
    with atheris.instrument_imports(include=["resnet_ref.weights", "resnet_ref.labels", "resnet_ref.images", *codecs]):
        target = importlib.import_module(f"fuzz.targets.{asked.target}")
    if not getattr(target, "GUIDED", True):  # libFuzzer drops every input that reaches no new code
        _unguided(asked)
        return
    corpus = asked.corpus or Path(tempfile.mkdtemp(prefix=f"corpus-{asked.target}-"))
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    options = ["-timeout=200", "-rss_limit_mb=2048", f"-max_len={_longest(target.seeds())}", "-print_final_stats=1"]
    if asked.runs is not None:
        options.append(f"-runs={asked.runs}")
    if asked.seconds is not None:
        options.append(f"-max_total_time={asked.seconds}")
    atheris.Setup([sys.argv[0], *options, str(corpus)], target.one)
    atheris.Fuzz()


def _unguided(asked: argparse.Namespace) -> None:
    target = importlib.import_module(f"fuzz.targets.{asked.target}")
    kept = sorted(asked.corpus.iterdir()) if asked.corpus and asked.corpus.is_dir() else []
    seeds = [*target.seeds(), *(path.read_bytes() for path in kept)]
    start, done = time.monotonic(), 0
    while True:
        for data in mutations(seeds, _BATCH, done):
            if done == asked.runs or (asked.seconds is not None and time.monotonic() - start > asked.seconds):
                print(f"Done {done} runs in {time.monotonic() - start:.0f} second(s)", file=sys.stderr)
                print(f"libraries died {len(getattr(target, 'deaths', []))} times", file=sys.stderr)
                return
            try:
                target.one(data)
            except BaseException:
                path = Path(f"crash-{hashlib.sha1(data).hexdigest()}")
                path.write_bytes(data)
                print(f"after {done} runs, input kept in {path}", file=sys.stderr)
                raise
            done += 1


def _longest(seeds: list[bytes]) -> int:
    return max(_MOST_LENGTH, *(2 * len(seed) for seed in seeds))


if __name__ == "__main__":
    main()
