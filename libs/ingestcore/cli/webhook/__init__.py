"""`ingest webhook`: what a producer of events does, from the command line."""
