"""What the demo's buckets, object and dataset are called."""

SOURCE_BUCKET, KEY = "demo-in", "raw/orders.csv"
LAKE_BUCKET = "demo-lake"
LAKE_URI = f"s3://{LAKE_BUCKET}/"
DATASET = "orders"
