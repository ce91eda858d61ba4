"""Patch descriptors, one file each: patches in, one vector a patch out."""
