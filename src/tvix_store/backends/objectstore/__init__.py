"""The backend `objectstore+…://`: a bucket of an object store, or a directory used as one."""
