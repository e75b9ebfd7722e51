"""Pages of `docs/` that tell what the code declares: their tables are drawn from it, so that they cannot lie."""
