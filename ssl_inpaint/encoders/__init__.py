"""Encoders, one file each: images in, named feature maps out."""
