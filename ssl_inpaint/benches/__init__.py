"""Which rows are measured by which tasks, over how many seeds: named, one file each."""
