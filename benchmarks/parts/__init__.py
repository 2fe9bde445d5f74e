"""The parts of a run. Each measures something and returns rows; those that share inputs are one part."""
