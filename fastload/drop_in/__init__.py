"""torch's face: fastload in the place of torch.utils.data."""
