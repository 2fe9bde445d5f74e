"""The protocol on the wire: the messages of the calls, and the dialects in which the services are offered.

Messages are written and read by hand on `model.wire`: a server that builds no protobuf objects answers several times as
many calls. The protobuf runtime is the oracle of the tests. `descriptors.binpb` is `protos/` compiled by `tools/compile_protos.py`.
"""
