"""The range coder alone: what it writes it reads, and nobody could write it shorter."""

from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mien.errors import MalformedError
from mien.range_coder import MAX_SYMBOL, TOTAL, BitCounter, RangeEncoder
from tests.support.string_reader import StringReader

UNEVEN = (0, 1, 2, 1000, 65000, 65535, TOTAL)
HALVES = (0, TOTAL // 2, TOTAL)

cdfs = st.sets(st.integers(1, TOTAL - 1), min_size=1, max_size=30).map(
    lambda cuts: (0, *sorted(cuts), TOTAL)
)
steps = st.lists(
    st.tuples(cdfs, st.integers(0, 1 << 16))
    | st.integers(0, 63).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, (1 << n) - 1))),
    max_size=60,
)


def encoded(cdf: tuple[int, ...], indices: list[int]) -> bytes:
    encoder = RangeEncoder()
    for index in indices:
        encoder.encode(cdf[index], cdf[index + 1])
    return encoder.finish()


@given(steps)
def test_symbols_and_bits_come_back_in_any_mixture(mixture):
    encoder, expected = RangeEncoder(), []
    for model, value in mixture:
        if isinstance(model, int):
            encoder.encode_bits(value, model)
        else:
            value %= len(model) - 1
            encoder.encode(model[value], model[value + 1])
        expected.append(value)
    decoder = StringReader(encoder.finish())
    found = [
        decoder.decode_bits(model) if isinstance(model, int) else decoder.decode(model)
        for model, _ in mixture
    ]
    decoder.finish()
    assert found == expected


@given(st.lists(st.integers(0, 5), max_size=400))
@example([5] * 300 + [0])  # the interval hugs its upper end: the longest carries
@example([4] * 300 + [5])
def test_carries_run_through_bytes_already_written(indices):
    decoder = StringReader(encoded(UNEVEN, indices))
    assert [decoder.decode(UNEVEN) for _ in indices] == indices
    decoder.finish()


def test_a_carry_really_runs_through_several_bytes():
    encoder = RangeEncoder()
    encoder.encode_bits((1 << 47) - 1, 47)
    encoder.encode_bits((1 << 60) - 1, 60)
    before = bytes(encoder._body)
    encoder.encode(TOTAL - 1, TOTAL)
    body = encoder.finish()
    assert before.count(0xFF) > 4
    decoder = StringReader(body)
    assert decoder.decode_bits(47) == (1 << 47) - 1
    assert decoder.decode_bits(60) == (1 << 60) - 1


rows = st.tuples(cdfs, st.integers(-MAX_SYMBOL, MAX_SYMBOL - 40)).map(
    lambda row: (list(row[0]), row[1])
)


@given(st.lists(st.tuples(rows, st.integers(-40, 40) | st.integers(-MAX_SYMBOL, MAX_SYMBOL))))
def test_symbols_come_back_by_rows_with_and_without_escapes(pairs):
    models = [row for row, _ in pairs]
    symbols = [max(-MAX_SYMBOL, min(MAX_SYMBOL, row[1] + symbol)) for row, symbol in pairs]
    encoder = RangeEncoder()
    encoder.encode_symbols(symbols, models)
    decoder = StringReader(encoder.finish())
    assert decoder.decode_symbols(models) == symbols
    decoder.finish()


@given(st.lists(st.integers(0, 2), min_size=1, max_size=9))
def test_no_shorter_string_says_the_same(indices):
    cdf = (0, 30000, 50000, TOTAL)
    body = encoded(cdf, indices)
    for size in range(len(body)):
        for shorter in product(range(256), repeat=size):
            decoder = StringReader(bytes(shorter))
            assert [decoder.decode(cdf) for _ in indices] != indices
        if size == 1:
            break  # two bytes are 65,536 strings; by then the claim is made


@given(st.lists(st.integers(0, 5), max_size=30), st.binary(min_size=1, max_size=8))
def test_no_other_string_passes_for_the_same_symbols(indices, other):
    body = encoded(UNEVEN, indices)
    for forged in {body + other, body[:-1] + other, other} - {body}:
        decoder = StringReader(forged)
        try:
            same = [decoder.decode(UNEVEN) for _ in indices] == indices
        except MalformedError:
            continue
        if same:
            with pytest.raises(MalformedError):
                decoder.finish()


@given(st.binary(max_size=200), st.lists(rows, max_size=100))
def test_any_bytes_decode_or_are_refused(body, models):
    decoder = StringReader(body)
    try:
        symbols = decoder.decode_symbols(models)
        decoder.decode_bits(40)
        decoder.decode(UNEVEN)
    except MalformedError:
        return
    assert len(symbols) == len(models)
    assert all(abs(symbol) <= MAX_SYMBOL for symbol in symbols)


@given(st.lists(st.integers(0, 5), max_size=2000))
def test_a_string_is_at_most_a_byte_over_its_ideal(indices):
    counter = BitCounter()
    for index in indices:
        counter.encode(UNEVEN[index], UNEVEN[index + 1])
    assert len(encoded(UNEVEN, indices)) < counter.bits / 8 + 1.01


def test_an_escape_that_never_ends_is_refused():
    encoder = RangeEncoder()
    encoder.encode(HALVES[1], HALVES[2])
    encoder.encode_bits(0, 60)  # and zeros for ever behind the end
    with pytest.raises(MalformedError, match="claims more"):
        StringReader(encoder.finish()).decode_symbols([(list(HALVES), 0)])


def test_an_escape_beyond_the_range_of_symbols_is_refused():
    encoder = RangeEncoder()
    encoder.encode(HALVES[1], HALVES[2])
    encoder._encode_escape(2 * MAX_SYMBOL + 2)
    with pytest.raises(MalformedError, match="beyond"):
        StringReader(encoder.finish()).decode_symbols([(list(HALVES), 0)])


@pytest.mark.parametrize(
    "read",
    [
        lambda decoder: decoder.decode(HALVES),
        lambda decoder: decoder.decode_bits(1),
        lambda decoder: decoder.decode_symbols([(list(HALVES), 0)]),
    ],
)
def test_the_gap_that_rounding_leaves_above_every_symbol_is_refused(read):
    top = (TOTAL - 1) ** 3 - 1  # the last value of the interval after three of the likely symbol
    decoder = StringReader(top.to_bytes(6, "big"))
    for _ in range(3):
        assert decoder.decode((0, TOTAL - 1, TOTAL)) == 0
    with pytest.raises(MalformedError, match="outside"):
        read(decoder)
