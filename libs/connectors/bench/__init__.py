"""Load and benchmark commands of the S3 ingest runbook."""
