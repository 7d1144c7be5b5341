"""Does a network compute what slim computed, and if not, why: runs, comparisons, and hypotheses that are tested."""
