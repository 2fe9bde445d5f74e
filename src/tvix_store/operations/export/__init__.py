"""Trees put on the disk, or into a tar."""
