"""Which samples a rank takes next: an order that fastload plans, or what a sampler draws."""
