"""The random draws of ADA's and EDM's augmentation: parameters of a batch from (seed, call, row)."""
