"""What each stage of ADA is, in torch: the reference of the kernels."""
