"""Bytes, ahead of need: native reader threads."""
