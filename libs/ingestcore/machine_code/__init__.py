"""What is worth machine code: C sources, built into one library while the project is installed."""
