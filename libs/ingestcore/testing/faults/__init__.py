"""Random faults on a whole fleet under load: what `tests/faults` runs. See docs/faults.md."""
