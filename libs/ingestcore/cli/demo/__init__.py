"""`ingest demo`: the whole way once on this machine, shown live, and compared with what must come out."""
