"""The plot of the rate control's lab run."""

from pathlib import Path


def draw(series: dict[str, list[float]], changes_s: tuple[float, float], path: Path) -> None:
    """Steps down, lag, faces and bytes a second over time.

    changes_s: when the line shrank and grew.
    """
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    # The same file from the same figures.
    mpl.rcParams["svg.hashsalt"] = "mien"
    start_s = series["time_s"][0]
    times = [at - start_s for at in series["time_s"]]
    figure, axes = plt.subplots(4, 1, sharex=True, figsize=(8, 8), layout="constrained")
    for axis, values, label in (
        (axes[0], per_second(times, series["bytes"]), "payload, bytes a second"),
        (axes[1], per_second(times, series["faces"]), "faces a second"),
        (axes[2], series["lag_s"], "lag, seconds"),
        (axes[3], series["rung"], "steps down"),
    ):
        axis.step(times, values, where="post", color="#0072b2")
        axis.axvspan(*changes_s, color="#e69f00", alpha=0.15)
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].set_title("A camera over a line of 64 kbit/s, of 3 kbit/s while shaded")
    axes[-1].set_xlabel("seconds")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def per_second(times: list[float], totals: list[float], window_s: float = 5.0) -> list[float]:
    """What a total grew by within the last seconds, a second."""
    rates = []
    for at, (now_s, total) in enumerate(zip(times, totals, strict=True)):
        since = next(i for i in range(at + 1) if times[i] >= now_s - window_s)
        passed_s = now_s - times[since]
        rates.append((total - totals[since]) / passed_s if passed_s else 0.0)
    return rates
