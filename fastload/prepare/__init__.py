"""Verbs on datasets: each a function that works without a terminal, its command-line options below it."""
