"""From JPEGs in shards to float32 batches of 256x256, through fastload and through its peers."""
