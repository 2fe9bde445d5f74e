"""The data model: pure values, checked once when they are made. No I/O, no event loop, no protobuf runtime."""
