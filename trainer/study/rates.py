"""What the stages share that train all rates of a codec at once."""

from collections.abc import Sequence

from torch import Tensor


def check_rates(rates: int, *settings: Sequence[float] | None) -> None:
    """Raise ValueError when a setting has another number of values than there are rates."""
    for setting in settings:
        if setting is not None and len(setting) != rates:
            raise ValueError(f"{rates} rates need as many values, not {setting}")


def balance(lmbdas: Tensor, exponent: float) -> Tensor:
    """How much each rate's loss counts (R,), 1 on average: by lmbda to the power of -exponent.

    A low rate's loss is large whatever is done, and would have the shared transforms to itself.
    """
    weight = lmbdas**-exponent
    return weight / weight.mean()


def by_rate(name: str, weighted: Tensor, rates: Tensor, count: int) -> dict[str, Tensor]:
    """Means of the weighted values (N,) of each rate; 0 for a rate that none of the faces has."""
    sums = weighted.new_zeros(count).index_add_(0, rates, weighted.detach())
    return {f"{name}_{rate}": mean for rate, mean in enumerate(sums / len(rates))}
