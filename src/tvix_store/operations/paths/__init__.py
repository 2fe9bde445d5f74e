"""Whole store paths: checked, substituted, copied."""
