"""What is worth machine code: one C file, built at installation where there is a C compiler. Without it everything
works the same way, only slower."""
