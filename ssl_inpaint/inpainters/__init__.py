"""Ways to fill holes in images, one file each: the trained generator, and what a user would otherwise pick."""
