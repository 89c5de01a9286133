"""What only a GPU can show: right pixels, kernels at the speed of memory, the loader before a model."""
