"""Digests of rows: SHA-256 of one message a row, by one C file that is built at installation where there is a C
compiler, else by polars-hash. Both make the same bytes."""
