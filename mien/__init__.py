"""What both ends of the wire agree on: bitstream, bundle, errors, contract."""
