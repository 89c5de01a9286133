"""The loader's augmentations in one pass, from uint8 pixels to the training tensor."""
