"""What a Prometheus reads from a service."""

import urllib.request


def metrics_page(port: int) -> dict[str, float]:
    """Series as they are written, with their labels → value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        lines = response.read().decode().splitlines()
    series = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in series}
