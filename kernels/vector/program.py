"""A program: operations one after the other, each shared out among threads, run inside one call without the GIL.

An operation is a record that begins with HEADER, and a function of (record, task, scratch). Each thread takes the tasks
of its own range, then what the others have left, by counting up the counter of that range. Where the next operation
needs what this one wrote, all wait for each other (`barrier`); waiting spins, and yields to whoever else wants the
core. How an operation is cut into tasks never decides in which order numbers are added, so results do not depend on the
number of threads.
"""

from types import SimpleNamespace

from resnet_ref.kernels.vector.emit import I32, I64, LINE, POINTER, Emitter, Layout, Value

HEADER = Layout("function", "tasks", "barrier")
OPERATION = [POINTER, I64, POINTER]  # its function's arguments: record, task, scratch
# records: [operations] addresses. counters: one cache line for each operation's range of each thread. waiting: how many
# times a thread has come to a barrier. ticks: where the first thread notes the time at the start and after each
# operation, or 0.
PROGRAM = Layout("records", "operations", "counters", "waiting", "threads", "ticks")
SPINS = 2000


def emit_program(e: Emitter) -> None:
    """`run(program, thread, scratch)`: what each thread of the program calls."""
    with e.function("run", [POINTER, I64, POINTER]) as (program, thread, scratch):
        f = e.record(program, PROGRAM)
        e.when(f.ticks, [], lambda _: _note(e, f, thread, I64(0)))

        def operation(number: Value, carried: list[Value]) -> list[Value]:
            (barriers,) = carried
            record = e.load(POINTER, e.at(e.pointer(f.records), e.mul(number, 8)), 8)
            header = e.record(record, HEADER)
            _take_tasks(e, f, record, header, number, thread, scratch)
            (barriers,) = e.when(header.barrier, [barriers], lambda c: [_wait(e, f, c[0])])
            e.when(f.ticks, [], lambda _: _note(e, f, thread, e.add(number, 1)))
            return [barriers]

        e.fold(f.operations, [I64(0)], operation, "operation")


def _take_tasks(
    e: Emitter, f: SimpleNamespace, record: Value, header: SimpleNamespace, number: Value, thread: Value, scratch: Value
) -> None:
    def ranges(i: Value) -> None:
        whose = e.divmod(e.add(thread, i), f.threads)[1]
        first = e.divmod(e.mul(header.tasks, whose), f.threads)[0]
        last = e.divmod(e.mul(header.tasks, e.add(whose, 1)), f.threads)[0]
        counter = e.at(e.pointer(f.counters), e.mul(e.add(e.mul(number, f.threads), whose), LINE))
        head, body, end = (e.block.append_basic_block(name) for name in ("take", "task", "taken"))
        e.block.branch(head)
        e.block.position_at_end(head)
        task = e.add(first, e.block.atomic_rmw("add", counter, I64(1), "monotonic"))
        e.block.cbranch(e.block.icmp_signed("<", task, last), body, end)
        e.block.position_at_end(body)
        e.call_address(header.function, OPERATION, [record, task, scratch])
        e.block.branch(head)
        e.block.position_at_end(end)

    e.loop(0, f.threads, ranges)


def _wait(e: Emitter, f: SimpleNamespace, barriers: Value) -> Value:
    """Until every thread has come here as often as this one."""
    barriers = e.add(barriers, 1)
    waiting = e.pointer(f.waiting)
    e.block.atomic_rmw("add", waiting, I64(1), "acq_rel")
    spin_until(e, waiting, e.mul(barriers, f.threads))
    return barriers


def spin_until(e: Emitter, counter: Value, wanted: Value) -> None:
    """Waits for the number at `counter` to be at least `wanted`."""
    before = e.block.block
    head, again, end = (e.block.append_basic_block(name) for name in ("wait", "again", "waited"))
    e.block.branch(head)
    e.block.position_at_end(head)
    spins = e.block.phi(I64)
    spins.add_incoming(I64(0), before)
    now = e.block.load_atomic(counter, "acquire", 8, typ=I64)
    e.block.cbranch(e.block.icmp_signed("<", now, wanted), again, end)
    e.block.position_at_end(again)
    following = e.add(spins, 1)
    e.when(e.block.zext(e.block.icmp_signed(">", spins, I64(SPINS)), I64), [], lambda _: _yield(e))
    e.pause()
    spins.add_incoming(following, e.block.block)
    e.block.branch(head)
    e.block.position_at_end(end)


def _yield(e: Emitter) -> list[Value]:
    """Lets another thread have the core: by the C library, or by Windows."""
    e.block.call(e.declare("SwitchToThread" if e.isa.system == "windows" else "sched_yield", I32, []), [])
    return []


def _note(e: Emitter, f: SimpleNamespace, thread: Value, number: Value) -> list[Value]:
    with e.block.if_then(e.block.icmp_signed("==", thread, I64(0))):
        now = e.block.call(e.declare("llvm.readcyclecounter", I64, []), [])
        e.store(now, e.at(e.pointer(f.ticks), e.mul(number, 8)), 8)
    return []
