"""Settings of Hypothesis for all tests, and a channel that lasts as long as they do."""

import grpc
from hypothesis import HealthCheck, settings

# Machines differ: no test may fail for being slow.
settings.register_profile(
    "mien", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("mien")

# Never connected, never closed. Whoever closes the last channel or server of a process ends grpc's
# threads, and holds Python's lock while one of them waits for it: a client's token is let go there
# (https://github.com/grpc/grpc/pull/42247). A test has client and recognizer in one process.
LASTING_CHANNEL = grpc.insecure_channel("localhost:1")
