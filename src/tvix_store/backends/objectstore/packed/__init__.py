"""The packed layout of a bucket: chunks and directories in packs, an index in the packs, a view of it on this machine.

See docs/design/packed.md for the format, and why it is safe.
"""
