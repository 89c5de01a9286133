"""What the tests within trainers have: a dataset, an index folder of their own, a limit on time."""

from tests.surroundings import numbered_shards, own_index_folder, time_limit

__all__ = ["own_index_folder"]

no_hang = time_limit(120, most_seconds_if_slow=1200)  # the longest takes 25 s on two free cores
shards = numbered_shards(44, 10)
