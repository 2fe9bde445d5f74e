"""Asyncio's missing parts. Nothing here knows a store."""
