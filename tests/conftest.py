"""What several test files share, made once: a network of three units, its weights file, and the shipped digits."""

from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import needs
import numpy as np
import numpy.typing as npt
import pytest
from browsing import started
from PIL import Image
from tiers import why_no_gpu
from variables import random_variables

from resnet_ref import save_weights
from resnet_ref.cli.group import _run
from resnet_ref.network import Network

with suppress(ModuleNotFoundError):
    from hypothesis import settings

    # How long an example takes depends on the machine, and proves nothing.
    settings.register_profile("resnet-ref", deadline=None)
    settings.load_profile("resnet-ref")

RECORDING = Path(__file__).parent / "recorded" / "digits_recording.h5"  # of slim on the network that ships
Run = Callable[..., tuple[int, str, str]]
TINY: dict[str, Any] = {
    "function": "resnet_v1",
    "num_classes": 5,
    "scope": "tiny",
    "blocks": [
        {
            "scope": "block1",
            "args": [
                {"depth": 12, "depth_bottleneck": 3, "stride": 1},
                {"depth": 12, "depth_bottleneck": 4, "stride": 2},
            ],
        },
        {"scope": "block2", "args": [{"depth": 20, "depth_bottleneck": 6, "stride": 1}]},
    ],
}
TINY_LABELS = ("ant", "bee", "cat", "dog", "élan")
TINY_PREPROCESSING = {"name": "vgg", "resize_side": 33, "height": 29, "width": 26}


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """With -n, who has nothing left to do takes from others; said here because pytest alone knows no --dist."""
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist = "worksteal"


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, pytest.CollectReport, Any]:
    """A file that imports what only an extra installs is skipped where that is not installed."""
    report = yield
    call = getattr(report, "call", None)
    problem = call.excinfo.value.__cause__ if call and call.excinfo else None
    if isinstance(problem, ModuleNotFoundError) and (why := needs.without(str(problem.name).partition(".")[0])):
        report.outcome, report.longrepr = "skipped", (str(collector.path), 1, f"Skipped: {why}")
    return report


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests of a GPU are skipped where there is none; with RESNET_REF_NEEDS_GPU set they fail."""
    for mark, packages in needs.OF_MARK.items():
        for why in filter(None, map(needs.without, packages)):
            if item.get_closest_marker(mark) is not None:
                pytest.skip(why)
    if item.get_closest_marker("gpu") is not None and (why := why_no_gpu()) is not None:
        pytest.skip(why)


@pytest.fixture(scope="session")
def tiny_variables() -> dict[str, npt.NDArray[np.float32]]:
    return random_variables(Network.from_json(TINY).variables())


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory, tiny_variables: dict[str, Any]) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.h5"
    save_weights(path, tiny_variables, TINY, labels=TINY_LABELS, preprocessing=TINY_PREPROCESSING)
    return path


@pytest.fixture(scope="session")
def digit_files() -> list[Path]:
    files = sorted(Path(__file__).parents[1].joinpath("weights", "digits").glob("digit_*.png"))
    assert len(files) == 12
    return files


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three small images of different sizes, the third far from the others."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(2)
    files = [folder / f"photo {number}.png" for number in (1, 2, 10)]
    for file, size in zip(files, ((40, 31), (33, 60), (64, 64)), strict=True):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(file)
    return files


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    yield from started()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process: (status, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        status = _run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call
