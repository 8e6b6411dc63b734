"""A harness with a defect a few branches deep, for a fuzzer to find."""

MAX_BYTES = 64


def one_input(data: bytes) -> None:
    if data[:1] == b"m" and data[1:2] == b"i" and data[2:3] == b"!":
        raise ZeroDivisionError("planted")
