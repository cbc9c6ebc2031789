"""Data sets that are drawn by code from the bundled digits."""
