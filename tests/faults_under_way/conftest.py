"""What tests of faults have: small shards, an index folder of their own, a limit on time."""

from tests.surroundings import numbered_shards, own_index_folder, time_limit

__all__ = ["own_index_folder"]

no_hang = time_limit(120, most_seconds_if_slow=1200)  # the longest takes 15 on two free cores
shards = numbered_shards(23, 6)  # 23 samples (prime) in shards of 6, 6, 6 and 5
