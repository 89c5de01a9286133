"""The trip, end to end: config, stages, batches, the loader itself, and who waits for whom."""
