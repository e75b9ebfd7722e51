"""A fleet on one machine: the dev stack where it is needed, one process per service, a supervisor over them."""
