"""The messages of the RPC contract as frozen dataclasses.

    upward    what a device sends on its stream
    downward  what the server sends on it
    results   what became of a chunk and of its faces; answers to Recognize, too
    watched   what those who watch are sent
    labels    what people say of faces, and what became of that
    ids       which texts are names of devices and bundles

Protobuf types stop here: `to_proto` and `from_proto` are the only way between the two, and
`from_proto` of what a client sends checks every field it will be trusted for.
proto/mien/v1/recognition.proto says what the fields mean.
"""
