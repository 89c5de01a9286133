"""Adaptive discriminator augmentation: its stages, its random draws and its kernels."""
