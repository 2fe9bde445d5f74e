"""The services' handlers: from messages to a store and back."""
