"""Self-contained HTML pages: one file each, no script, no network; light and dark, for keyboard and screen reader."""
