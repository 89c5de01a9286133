"""What each stage of ADA is, in plain torch: the reference of the kernels."""
