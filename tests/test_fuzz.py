"""Damaged files of every kind get one of the project's own errors, in bounded time and memory (see fuzz/README.md)."""

import importlib
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import needs
import numpy as np
import pytest
from fuzz import guard, targets
from fuzz.checkpoints import VALUES, folder
from fuzz.guard import TooSlow, guarded
from fuzz.mutate import mutations

from resnet_ref import load_weights
from resnet_ref.images import decode_image
from resnet_ref.weights.checkpoint import open_checkpoint

HERE = Path(__file__).parent
TARGETS = sorted(module.name for module in pkgutil.iter_modules(targets.__path__))
MUTATIONS = 400


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    module = importlib.import_module(f"fuzz.targets.{request.param}")
    yield module
    if hasattr(module, "close"):
        module.close()


@needs.ALARM
def test_no_damage_of_a_seeded_slice_gets_past_a_reader(target: ModuleType) -> None:
    for number, data in enumerate(mutations(target.seeds(), MUTATIONS, seed=7)):
        try:
            guarded(target.one, data)
        except BaseException as error:
            kept = folder().with_name(f"{folder().name}-found")
            kept.write_bytes(data)
            error.add_note(f"mutation {number} of {target.__name__}, kept in {kept}")
            raise


@pytest.mark.parametrize("name", TARGETS)
def test_no_damage_that_coverage_guides_gets_past_a_reader(name: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    in_child = not getattr(importlib.import_module(f"fuzz.targets.{name}"), "GUIDED", True)
    most = 100 if in_child else 800
    # A shell between: the most memory there ever was, which is limited, a process has from the one that starts it.
    alone = ["sh", "-c", '"$@"; exit $?', "sh"]
    command = [*alone, sys.executable, "-m", "fuzz", name, "--runs", str(most), str(tmp_path / "corpus")]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(tmp_path)},  # libFuzzer ends without cleaning up
    )
    assert done.returncode == 0, done.stderr[-3000:]
    runs = re.search(r"Done (\d+) runs", done.stderr)
    assert runs
    assert int(runs[1]) >= most


def test_the_seeds_are_whole_checkpoints() -> None:
    """Else all the mutations would be refused at the door."""
    for name, file in (("v1", "model.ckpt"), ("v2", "m"), ("objects", "m")):
        module = importlib.import_module(f"fuzz.targets.{name}")
        for seed in module.seeds():
            module.one(seed)
            with open_checkpoint(folder() / file) as checkpoint:
                for variable, value in VALUES.items():
                    np.testing.assert_array_equal(checkpoint.read(variable), value, strict=True)


def test_the_seeds_are_whole_weights_files(tmp_path: Path) -> None:
    module = importlib.import_module("fuzz.targets.weights")
    for number, seed in enumerate(module.seeds()):
        (path := tmp_path / f"{number}.h5").write_bytes(module.file_of(seed))
        assert load_weights(path).labels == ("a", "b")


def test_the_seeds_are_whole_images() -> None:
    for seed in importlib.import_module("fuzz.targets.images").seeds():
        assert decode_image(seed, "seed").shape in ((9, 7, 3), (7, 9, 3))


def test_the_same_seed_makes_the_same_mutations() -> None:
    seeds = [b"some bytes", bytes(range(200))]
    assert list(mutations(seeds, 200, 1)) == list(mutations(seeds, 200, 1)) != list(mutations(seeds, 200, 2))


@needs.ALARM
def test_a_reader_that_fails_hangs_or_takes_memory_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(data: bytes) -> None:
        while True:
            pass

    with monkeypatch.context() as patch:
        patch.setattr(guard, "MOST_SECONDS", 0.2)
        with pytest.raises(TooSlow, match=r"no end within 0\.2 s"):
            guarded(hang, b"")
    with pytest.raises(AssertionError, match="bytes of memory for 0 bytes of input"):
        guarded(lambda data: np.ones(guard.MOST_BYTES, np.uint8).sum(), b"")
    with pytest.raises(ZeroDivisionError):
        guarded(lambda data: 1 // len(data), b"")
