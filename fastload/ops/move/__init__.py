"""Moves of whole pixels: flips, quarter turns and translations."""
