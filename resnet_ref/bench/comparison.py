"""The whole benchmark: files, agreement, turns, starts."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from resnet_ref.bench.agreement import error, require_agreement, truth
from resnet_ref.bench.contenders import Contender
from resnet_ref.bench.files import Files, make_network_files
from resnet_ref.bench.peaks import Peak, peak
from resnet_ref.bench.process import running
from resnet_ref.bench.start import Start, start
from resnet_ref.bench.traffic import least_bytes
from resnet_ref.bench.turns import take_turns
from resnet_ref.network import Network


@dataclass(frozen=True)
class Agenda:
    """What to measure. batches: images at a time. rounds: of turns. starts: how many of each kind; 0 for none."""

    contenders: Sequence[Contender]
    batches: Sequence[int]
    threads: int
    rounds: int
    starts: int

    @property
    def steps(self) -> int:
        """How often `compare` calls `progress`."""
        ours = sum(contender.is_ours for contender in self.contenders)
        started = (self.starts + 1) * len(self.contenders) + self.starts * ours if self.starts else 0
        return len(self.batches) * self.rounds * len(self.contenders) + started


@dataclass(frozen=True)
class Times:
    """One contender at one batch. seconds: of each timed run, in order. error: see `agreement.error`."""

    seconds: list[float]
    error: float

    @property
    def median(self) -> float:
        """In seconds."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and the upper, in seconds."""
        low, _, high = statistics.quantiles(self.seconds, n=4)
        return low, high


@dataclass(frozen=True)
class Batch:
    """All contenders' times, by name, for so many images at a time. flops: of one run (see `shapes.Layer`). bytes: that
    one run moves at least, layer by layer (see `traffic`)."""

    size: int
    flops: int
    bytes: int
    times: Mapping[str, Times]

    def ratio(self, name: str) -> float:
        """A contender's median over that of the first, which is ours."""
        return self.times[name].median / next(iter(self.times.values())).median


@dataclass(frozen=True)
class Comparison:
    """What was measured. peaks: by contenders' devices. starts: by contender."""

    network: Network
    size: tuple[int, int]
    agenda: Agenda
    peaks: Mapping[str, Peak]
    batches: Sequence[Batch]
    starts: Mapping[str, Start]

    def peak(self, name: str) -> Peak:
        """Of the device that a contender runs on."""
        return self.peaks[next(one.device for one in self.agenda.contenders if one.name == name)]


def compare(files: Files, agenda: Agenda, progress: Callable[[], None]) -> Comparison:
    """Run contenders beside each other. VerificationError where their outputs differ, and then nothing is timed;
    BenchError where one cannot be run."""
    make_network_files(files, agenda.contenders)
    peaks = {device: peak(device, agenda.threads) for device in dict.fromkeys(one.device for one in agenda.contenders)}
    batches = [_batch(files, agenda, batch, progress) for batch in agenda.batches]
    timed = agenda.contenders if agenda.starts else []
    starts = {one.name: start(one, files, agenda.threads, agenda.starts, progress) for one in timed}
    return Comparison(files.network, files.size, agenda, peaks, batches, starts)


def _batch(files: Files, agenda: Agenda, batch: int, progress: Callable[[], None]) -> Batch:
    true = truth(files, batch)
    with ExitStack() as stack:
        processes = [stack.enter_context(running(one, files, batch, agenda.threads)) for one in agenda.contenders]
        outputs = {process.contender.name: process.outputs(files.folder / "outputs.npz") for process in processes}
        require_agreement(outputs, true, {contender.name: contender.precision for contender in agenda.contenders})
        taken = take_turns(processes, agenda.rounds, progress)
    times = {
        name: Times(seconds, error(found, true)) for (name, found), seconds in zip(outputs.items(), taken, strict=True)
    }
    flops = sum(layer.flops for layer in files.network.shapes(batch, *files.size).layers)
    moved = sum(least_bytes(files.network, (batch, *files.size, files.network.channels)).values())
    return Batch(batch, flops, moved, times)
