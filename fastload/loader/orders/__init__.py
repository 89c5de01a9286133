"""Which samples a rank takes next: an order planned by fastload, or a user's sampler."""
