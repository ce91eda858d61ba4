"""Data sets, one file each, and the store that decodes their images once."""
