"""Adaptive augmentation beside the sequence of torch operations that it is published as."""
