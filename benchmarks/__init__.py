"""Our work and other stores' on the same input, measured in one run. docs/benchmarks.md tells what and how."""
