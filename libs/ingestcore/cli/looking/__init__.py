"""Commands that look into a running platform: topics, records, one row, what became of all rows. They only read."""
