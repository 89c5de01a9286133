"""DiffAugment: colour, translation and cutout with gradients."""
