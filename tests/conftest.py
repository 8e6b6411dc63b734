"""Settings of Hypothesis for all tests."""

from hypothesis import HealthCheck, settings

# Machines differ: no test may fail for being slow.
settings.register_profile(
    "mien", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("mien")
