"""Benchmarks of the whole chain on real servers, and of each stage alone: commands, never part of tests."""
