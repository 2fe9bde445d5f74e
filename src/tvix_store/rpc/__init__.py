"""gRPC without a transport of its own: an ASGI application, framing, statuses, reflection, health, and the services' handlers.

A handler takes messages (one, or an async iterator of them) as bytes, or as its method's row decodes them, and gives bytes. It
knows neither HTTP nor protobuf objects.
"""
