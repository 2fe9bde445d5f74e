"""Keeping a store small: its time, pins, and which paths may go."""
