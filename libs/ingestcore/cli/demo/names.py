"""What the demo's buckets, object, sources and datasets are called."""

SOURCE_BUCKET, KEY = "demo-in", "raw/orders.csv"
LAKE_BUCKET = "demo-lake"
LAKE_URI = f"s3://{LAKE_BUCKET}/"
DATASET = "orders"

WEBHOOK = "demo-shop"
"""The source that producers post to."""
EVENTS = "payments"
"""Its dataset, and the table."""
WAREHOUSE, SCHEMA = "warehouse", "ingest_demo"
"""The sink; the schema is the demo's own, and made anew each time."""
