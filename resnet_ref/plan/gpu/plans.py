"""The plans that there are: those at work, and those kept for later as long as there is memory for them."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Condition, RLock
from typing import Any, TypeVar

import numpy as np

from resnet_ref.errors import DeviceError
from resnet_ref.kernels.cuda.runtime import HostArray, Runtime
from resnet_ref.plan.gpu.plan import GpuPlan, Ticket
from resnet_ref.plan.gpu.room import NoRoomError

MOST_PLANS = 8  # that are kept for later
Key = tuple[tuple[int, ...], tuple[str, ...]]  # shape of images, outputs
T = TypeVar("T")


class Plans:
    """Of one planner, for all its threads. Whoever makes a plan gives it back, or discards it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._idle: OrderedDict[int, tuple[Key, Any]] = OrderedDict()  # plans, the least recently used first
        self._flights: list[Flight] = []
        self._at_work = 0
        self._most_bytes = 0  # of the idle ones, but for the last
        self._releases = 0  # how often memory, or a plan, became free
        self._changed = Condition()

    def make(self, build: Callable[[], T], key: Key | None = None) -> T:
        """An idle plan of that key, or what `build` returns, which takes memory: where there is too little, that of
        others is freed, or waited for. It is at work until it is given back, discarded, or `done`."""
        while True:
            with self._changed:
                self._at_work += 1
                releases = self._releases
                found = next((number for number, (known, _) in self._idle.items() if known == key), None)
                if found is not None:
                    return self._idle.pop(found)[1]
            try:
                free = self._runtime.free_bytes()
                made = build()
            except NoRoomError:
                if not self._make_room(releases):
                    raise
                continue
            except BaseException:
                self.done()
                raise
            with self._changed:
                self._most_bytes = (free + self._idle_bytes()) // 2
            return made

    def give(self, key: Key, plan: GpuPlan) -> None:
        """Back, done with its work."""
        with self._changed:
            self._idle[id(plan)] = (key, plan)
            while len(self._idle) > MOST_PLANS or (len(self._idle) > 1 and self._idle_bytes() > self._most_bytes):
                self._evict()
            self.done()

    def discard(self, plan: GpuPlan) -> None:
        """A plan that failed."""
        plan.close()
        self.done()

    def done(self) -> None:
        """What was made is at work no more."""
        with self._changed:
            self._at_work -= 1
            self._releases += 1
            self._changed.notify_all()

    def fly(self, key: Key, plan: GpuPlan, images: HostArray, outputs: dict[str, HostArray]) -> "Flight":
        """Sends a plan that was made to work on images; it comes back by itself when it lands."""
        try:
            ticket = plan.submit(images)
        except BaseException:
            self.discard(plan)
            raise
        flight = Flight(self, key, plan, ticket, outputs)
        with self._changed:
            self._flights.append(flight)
            self._changed.notify_all()
        return flight

    def landed(self, flight: "Flight") -> None:
        """It is no more to be waited for."""
        with self._changed:
            self._flights.remove(flight)

    def _make_room(self, releases: int) -> bool:
        """After a failure to make something: whether another attempt may succeed. releases: before that one."""
        with self._changed:
            self._at_work -= 1
            self._changed.notify_all()
            if self._releases != releases:
                return True
            if self._idle:
                self._evict()
                return True
            if not self._flights:
                return self._at_work > 0 and self._changed.wait()
            flight = self._flights[0]
        flight.land()
        return True

    def _evict(self) -> None:
        _, (_, plan) = self._idle.popitem(last=False)
        plan.close()
        self._releases += 1

    def _idle_bytes(self) -> int:
        return sum(plan.program.nbytes for _, plan in self._idle.values())


class Flight:
    """Images that a plan is at work on. Anyone may wait for it who needs the memory: its outputs are put aside."""

    def __init__(self, plans: Plans, key: Key, plan: GpuPlan, ticket: Ticket, outputs: dict[str, HostArray]) -> None:
        """outputs: where they go."""
        self._plans, self._key, self._outputs = plans, key, outputs
        self._plan: GpuPlan | None = plan
        self._ticket = ticket
        self._error: DeviceError | None = None
        self._lock = RLock()

    def land(self) -> DeviceError | None:
        """Waits, once; what went wrong."""
        with self._lock:
            if self._plan is not None:
                plan, self._plan = self._plan, None
                self._plans.landed(self)
                try:
                    for name, output in self._ticket.wait().items():
                        np.copyto(self._outputs[name], output)
                except BaseException as error:
                    self._plans.discard(plan)
                    if not isinstance(error, DeviceError):
                        raise
                    self._error = error
                else:
                    self._plans.give(self._key, plan)
            return self._error
