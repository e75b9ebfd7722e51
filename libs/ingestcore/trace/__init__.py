"""One row followed back to its bytes and forward to the lake, through ledger, topics and files as they are."""
