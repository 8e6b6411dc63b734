"""The books themselves: what they must notice."""

from collections import Counter
from dataclasses import replace

import pytest
from prometheus_client import generate_latest

from edge_encoder.metrics import UNANSWERED, UNCONFIRMED, UPLINK_FULL, Metrics
from mien.errors import DeadlineExceededError
from tests.support.books import Account, Books
from tests.support.consumer import Face


def faces(count: int) -> Counter[Face]:
    return Counter(("door", 1, seq, 0) for seq in range(1, count + 1))


GOOD = Account(offered=10, accepted=10, settled=7, dropped=Counter({UPLINK_FULL: 3}))


def test_books_that_are_right_balance() -> None:
    assert Books((GOOD, GOOD), faces(14)).balance
    assert Books((GOOD,), faces(5), missed=2).balance


@pytest.mark.parametrize("seen", [7, 8, 9])
def test_of_what_is_unconfirmed_any_number_may_have_been_seen(seen: int) -> None:
    books = Books((replace(GOOD, accepted=12, unconfirmed=2),), faces(seen))
    assert books.balance
    assert books.lost == 0


@pytest.mark.parametrize(
    ("account", "seen"),
    [
        pytest.param(GOOD, faces(6), id="lost on the way to the consumer"),
        pytest.param(GOOD, faces(8), id="seen and not settled"),
        pytest.param(GOOD, faces(7) + faces(1), id="doubled"),
        pytest.param(replace(GOOD, accepted=11), faces(7), id="lost by the device"),
        pytest.param(replace(GOOD, accepted=9), faces(7), id="dropped and settled"),
        pytest.param(replace(GOOD, accepted=11, waiting=1), faces(7), id="not over yet"),
        pytest.param(
            replace(GOOD, accepted=11, unconfirmed=1), faces(9), id="more seen than can have been"
        ),
        pytest.param(
            replace(GOOD, accepted=11, unconfirmed=1), faces(6), id="lost beside an unconfirmed one"
        ),
        pytest.param(replace(GOOD, unconfirmed=1), faces(7), id="unconfirmed and dropped"),
    ],
)
def test_a_single_face_too_few_or_too_many_is_noticed(
    account: Account, seen: Counter[Face]
) -> None:
    books = Books((account,), seen)
    assert not books.balance
    assert "seen by the consumer" in str(books)


def test_an_account_is_what_the_metrics_say() -> None:
    metrics = Metrics()
    metrics.faces.inc(20)
    metrics.recognised.inc(11)
    metrics.drop(UNANSWERED, 2)
    metrics.drop(UNCONFIRMED, 1)
    metrics.drop(UPLINK_FULL, 3)
    metrics.drop("latent_out_of_range", 1)  # could not be coded
    metrics.reject(DeadlineExceededError.code, 2)
    for gauge, value in ((metrics.queue_chunks, 0), (metrics.in_flight_chunks, 1)):
        gauge.set(value)
    page = generate_latest(metrics.registry).decode()
    assert Account.of_run(page) == Account(
        offered=20,
        accepted=19,
        settled=15,
        unanswered=2,
        unconfirmed=1,
        dropped=Counter({UPLINK_FULL: 3}),
        rejected=Counter({DeadlineExceededError.code: 2}),
        waiting=1,
    )
