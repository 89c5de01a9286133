"""Images decoded by NVIDIA DALI. The library is imported here and nowhere else."""
