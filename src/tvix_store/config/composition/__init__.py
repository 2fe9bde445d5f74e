"""Compositions: stores out of stores, as a graph of instances that is read, checked and opened. See docs/composition.md."""
