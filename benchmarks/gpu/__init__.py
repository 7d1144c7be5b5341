"""What gpu_check.py runs: parts, each a process of its own, and the folder in which each leaves what it found."""
