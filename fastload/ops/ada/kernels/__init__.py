"""ADA's Triton kernels."""
