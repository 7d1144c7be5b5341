"""What PyTorch has of CUDA, asked in a process of its own: to import it takes seconds, and memory that stays."""

import json
import subprocess
import sys
from functools import cache

_ASK = """
import json, torch
about = {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
print(json.dumps(about if torch.cuda.is_available() else None))
"""


@cache
def torch_cuda() -> dict[str, str | int] | None:
    """Versions of the installed PyTorch, its CUDA and its cuDNN; None where it cannot use a GPU."""
    asked = subprocess.run([sys.executable, "-W", "ignore", "-c", _ASK], capture_output=True, text=True, check=False)
    return json.loads(asked.stdout.splitlines()[-1]) if asked.returncode == 0 else None
