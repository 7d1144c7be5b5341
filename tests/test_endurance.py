"""Ten thousand runs: memory does not grow, and the same images give the same bits each time."""

import subprocess
import sys
from pathlib import Path

import needs
import pytest

CODE = """
import sys
from pathlib import Path
import numpy as np
from resnet_ref import load_model
from resnet_ref.plan import planner

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(l for l in lines if l.startswith("VmRSS")).split()[1])

model = load_model(sys.argv[1], "cpu", threads=2)
rng = np.random.default_rng(0)
shapes = [(1 + k % 3, 9 + 2 * k, 24 - k) for k in range(planner.MOST_PLANS + 4)]
batches = [rng.normal(0, 60, (*shape, 3)).astype(np.float32) for shape in shapes]
wanted = [["tiny/block1"] if k % 2 else None for k in range(len(shapes))]

def run(k):
    found = model(batches[k], wanted[k])
    return (found,) if wanted[k] is None else (found[0], found[1]["tiny/block1"])

expected = [run(k) for k in range(len(shapes))]
made = 0
plan = planner.Plan
def counted(*arguments):
    global made
    made += 1
    return plan(*arguments)
planner.Plan = counted

RUNS, sizes = 10_000, []
for number in range(RUNS):
    # Some shapes again at once, so that plans are kept and used as well as thrown away.
    k = number // 3 % len(shapes)
    for found, value in zip(run(k), expected[k], strict=True):
        assert (found.view(np.int32) == value.view(np.int32)).all(), (number, shapes[k])
    if number % 500 == 499:
        sizes.append(resident())
assert made == RUNS // 3 + 1, made
print(*sizes)
"""


@needs.PROC
@pytest.mark.slow
def test_ten_thousand_runs_over_changing_shapes_take_no_more_memory_and_change_no_bit(tiny_file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tiny_file)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    sizes = [int(size) for size in done.stdout.split()]
    print(f"\n{[round(size / 2**20) for size in sizes]} MiB")
    assert max(sizes[10:]) < max(sizes[:4]) + (8 << 20)
