"""fastload as a replacement for torch.utils.data."""
