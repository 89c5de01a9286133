"""Resident memory, descriptors and threads of a loader over hundreds of thousands of samples."""
