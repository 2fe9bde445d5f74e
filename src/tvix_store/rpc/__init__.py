"""gRPC without a transport of its own: an ASGI application, framing, statuses, reflection, health, and the services' handlers.

A handler takes raw messages (bytes, or an async iterator of them) and gives raw messages; it knows neither HTTP nor protobuf
objects.
"""
