"""What is on disk: tar, zip and folder containers as rows (key, extension, offset_bytes, size_bytes)."""
