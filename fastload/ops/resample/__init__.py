"""Upsampling, filtering and downsampling by FIR filters."""
