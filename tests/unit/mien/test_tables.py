"""Integer CDFs: made exactly, kept exactly, refused when wrong."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.errors import TablesError
from mien.integer_cdf import integer_cdf
from mien.npz import write_npz
from mien.range_coder import TOTAL, BitCounter, escape_distance
from mien.tables import CdfTables
from tests.support.chunks import latents
from tests.support.tiny_bundle import SHAPE, tiny_symbols, tiny_tables

TABLES = tiny_tables()
FIRST_ROWS = TABLES.first_rows(0, 0)
masses = st.floats(0, 1e6, allow_nan=False) | st.floats(0, 1e-9)


@given(st.lists(masses, min_size=2, max_size=80).filter(lambda pmf: sum(pmf) > 0))
def test_an_integer_cdf_gives_every_bin_a_count_and_sums_exactly(pmf):
    cdf = integer_cdf(pmf)
    assert cdf.dtype == np.uint32
    assert cdf[0] == 0
    assert cdf[-1] == TOTAL
    assert (np.diff(cdf.astype(int)) >= 1).all()
    assert np.array_equal(cdf, integer_cdf(np.array(pmf)))


@given(st.lists(st.floats(1e-3, 1), min_size=2, max_size=40))
def test_an_integer_cdf_costs_next_to_nothing_over_its_floats(pmf):
    shares = np.array(pmf) / sum(pmf)
    counts = np.diff(integer_cdf(pmf).astype(float))
    assert float(np.sum(shares * np.log2(shares * TOTAL / counts))) < 1e-3


@pytest.mark.parametrize(
    "pmf", [[1.0], [], [[0.5, 0.5]], [0, 0], [1, -1], [1, float("nan")], [1, float("inf")]]
)
def test_what_is_no_pmf_is_refused(pmf):
    with pytest.raises(TablesError):
        integer_cdf(pmf)


@given(latents(SHAPE))
def test_ideal_bits_are_those_of_the_coded_symbols(latent):
    counter = BitCounter()
    for symbol, (cdf, offset) in zip(
        latent.ravel().tolist(), TABLES.rows()[: latent.size], strict=True
    ):
        index, escape = symbol - offset, len(cdf) - 2
        if 0 <= index < escape:
            counter.encode(cdf[index], cdf[index + 1])
        else:
            counter.encode(cdf[escape], cdf[escape + 1])
            bits = (escape_distance(symbol, offset, escape) + 1).bit_length()
            counter.encode_bits(0, 2 * bits - 1)
    assert TABLES.ideal_bits(latent, FIRST_ROWS) == pytest.approx(counter.bits)


def test_ideal_bits_of_several_faces_add_up():
    latents = tiny_symbols(5)
    one_by_one = sum(TABLES.ideal_bits(latent, FIRST_ROWS) for latent in latents)
    assert TABLES.ideal_bits(latents, FIRST_ROWS) == pytest.approx(one_by_one)


@given(latents(SHAPE), st.integers(0, TABLES.levels - 1))
def test_the_best_prior_is_the_one_by_which_a_face_costs_the_least(latent, level):
    bits = [
        TABLES.ideal_bits(latent, TABLES.first_rows(level, prior)) for prior in range(TABLES.priors)
    ]
    # An escape's own bits are left out of the choice; they differ by few of them.
    escapes = np.abs(latent) > 12
    if not escapes.any():
        assert bits[TABLES.best_prior(latent, level)] == pytest.approx(min(bits), abs=0.02)


def test_saved_tables_load_as_they_were_and_save_to_the_same_bytes(tmp_path):
    TABLES.save(tmp_path / "a.npz")
    loaded = CdfTables.load((tmp_path / "a.npz").read_bytes())
    assert loaded.shape == TABLES.shape
    assert loaded.priors == TABLES.priors == 2
    for name in ("cdf", "sizes", "offsets", "contexts", "holds", "gains"):
        assert np.array_equal(getattr(loaded, name), getattr(TABLES, name))
        assert getattr(loaded, name).dtype == getattr(TABLES, name).dtype
    loaded.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_tables_cannot_be_changed_once_made():
    with pytest.raises(ValueError, match="read-only"):
        TABLES.cdf[1] = 7


def parts() -> dict[str, np.ndarray]:
    return {
        "cdf": TABLES.cdf.copy(),
        "sizes": TABLES.sizes.copy(),
        "offsets": TABLES.offsets.copy(),
        "contexts": TABLES.contexts.copy(),
        "holds": TABLES.holds.copy(),
        "gains": TABLES.gains.copy(),
    }


@pytest.mark.parametrize("gain", [0, -1, np.nan, np.inf])
def test_a_gain_that_is_not_positive_and_finite_is_refused(gain):
    changed = parts()
    changed["gains"][1, 2] = gain
    with pytest.raises(TablesError, match="gains"):
        CdfTables(**changed, shape=SHAPE)


@pytest.mark.parametrize("priors", [0, -1, 17, 1 << 40])
def test_priors_that_the_rows_do_not_hold_are_refused(priors):
    with pytest.raises(TablesError, match="priors"):
        CdfTables(**parts(), shape=SHAPE, priors=priors)


def test_a_row_that_does_not_rise_is_refused():
    changed = parts()
    fifth = TABLES.starts[3] + 5
    changed["cdf"][fifth] = changed["cdf"][fifth - 1]
    with pytest.raises(TablesError, match="rise"):
        CdfTables(**changed, shape=SHAPE)


def test_a_row_that_does_not_start_at_zero_is_refused():
    changed = parts()
    changed["cdf"][TABLES.starts[3]] = 1
    with pytest.raises(TablesError, match="rise"):
        CdfTables(**changed, shape=SHAPE)


def test_a_row_with_another_total_is_refused():
    changed = parts()
    changed["cdf"][TABLES.starts[4] - 1] += 1
    with pytest.raises(TablesError, match="65536"):
        CdfTables(**changed, shape=SHAPE)


@pytest.mark.parametrize("more", [-1, 1])
def test_fewer_or_more_counts_than_the_rows_have_are_refused(more):
    changed = parts()
    changed["sizes"][3] += more
    with pytest.raises(TablesError, match="counts"):
        CdfTables(**changed, shape=SHAPE)


@pytest.mark.parametrize("size", [-1, 0, 1, 27, 1 << 30])
def test_a_size_that_no_row_has_is_refused(size):
    changed = parts()
    changed["sizes"][0] = size
    with pytest.raises(TablesError, match="bins"):
        CdfTables(**changed, shape=SHAPE)


@pytest.mark.parametrize("offset", [-32768, 32767, 1 << 30, -(1 << 31)])
def test_bins_beyond_the_range_of_symbols_are_refused(offset):
    changed = parts()
    changed["offsets"][0] = offset
    with pytest.raises(TablesError, match="within"):
        CdfTables(**changed, shape=SHAPE)


@pytest.mark.parametrize(
    "shape", [(4, 3, 4), (0, 3, 3), (-4, -3, 3), (1 << 20, 1 << 20, 1), (36,), (1, 4, 3, 3)]
)
def test_a_shape_that_does_not_fit_the_rows_is_refused(shape):
    with pytest.raises(TablesError):
        CdfTables(**parts(), shape=shape)


@pytest.mark.parametrize("name", ["cdf", "sizes", "offsets", "contexts", "holds"])
def test_arrays_of_another_kind_are_refused(name):
    changed = parts()
    with pytest.raises(TablesError):
        CdfTables(**(changed | {name: changed[name].astype(np.float64)}), shape=SHAPE)
    with pytest.raises(TablesError):
        CdfTables(**(changed | {name: changed[name][:-1]}), shape=SHAPE)


def saved(**changes: np.ndarray) -> bytes:
    arrays = parts() | {"shape": np.array(SHAPE, np.int32)} | changes
    return write_npz({name: array for name, array in arrays.items() if array is not None})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04",
        saved(cdf=None),
        saved(more=np.zeros(1, np.int32)),
        saved(shape=np.array([4, 9], np.int32)),
        saved(shape=np.array(SHAPE, np.int64)),
        saved(sizes=np.full(36, 99, np.int32)),
        saved()[:-30],
    ],
)
def test_files_that_hold_anything_else_are_refused(data):
    with pytest.raises(TablesError):
        CdfTables.load(data)


@given(st.integers(0, len(saved()) - 1), st.integers(0, 7))
def test_a_flipped_bit_in_the_file_is_refused_or_harmless(position, bit):
    data = bytearray(saved())
    data[position] ^= 1 << bit
    try:
        loaded = CdfTables.load(bytes(data))
    except TablesError:
        return
    assert loaded.shape == SHAPE
    assert np.array_equal(loaded.cdf, TABLES.cdf)


@given(st.binary(max_size=300))
def test_any_bytes_for_a_file_are_refused(data):
    with pytest.raises(TablesError):
        CdfTables.load(data)


def npz_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


HEADER = "{'descr': '<u4', 'fortran_order': False, 'shape': (1000000, 1000000), }"


@pytest.mark.parametrize(
    "array",
    [
        npy(HEADER),
        npy(HEADER, b"\0" * 64),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"cos\nsystem\n."),
        npy("{'descr': '<u4', 'fortran_order': True, 'shape': (2, 2), }", bytes(16)),
        npy("{'descr': '<u4', 'fortran_order': False, 'shape': (-2, 2), }", bytes(16)),
        npy("((((((", bytes(16)),
        npy("{'descr': '<u4', 'fortran_order': False, 'shape': (), }", bytes(4)),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2), }", bytes(32)),
        npy("__import__('os')", bytes(16)),
        b"\x93NUMPY\x03\x00",
        b"",
    ],
)
def test_hostile_arrays_are_refused_before_anything_is_allocated(array):
    small = npy("{'descr': '<i4', 'fortran_order': False, 'shape': (1,), }", bytes(4))
    data = npz_of(
        {"cdf": array}
        | dict.fromkeys(
            ("sizes", "offsets", "shape", "contexts", "holds", "gains", "priors"), small
        )
    )
    with pytest.raises(TablesError):
        CdfTables.load(data)


def test_a_file_that_unpacks_to_too_much_is_refused():
    bomb = npz_of(
        {
            name: bytes(80 << 20)
            for name in ("cdf", "sizes", "offsets", "shape", "contexts", "holds", "gains", "priors")
        }
    )
    with pytest.raises(TablesError, match="unpacks"):
        CdfTables.load(bomb)


@pytest.mark.parametrize(
    ("column", "value"),
    [(0, -1), (0, 1 << 30), (1, 0), (1, -3), (1, 1 << 30), (2, 32768), (2, -(1 << 31))],
)
def test_a_context_that_points_outside_of_the_rows_is_refused(column, value):
    changed = parts()
    changed["contexts"][2, 1, 5, column] = value
    with pytest.raises(TablesError, match="context"):
        CdfTables(**changed, shape=SHAPE)


def test_symbols_beyond_those_of_a_context_have_its_first_and_its_last_row():
    before = np.full(SHAPE, 32767, np.int32)
    first, count, _ = TABLES.contexts[0, 0].T
    assert np.array_equal(TABLES.rows_given(before, 1), first + count - 1)
    assert np.array_equal(TABLES.rows_given(-before, 1), first)
    assert (count > 1).all()


@pytest.mark.parametrize("hold", [-1, 31, 129])
def test_a_hold_below_rounding_or_of_two_symbols_is_refused(hold):
    changed = parts()
    changed["holds"][1, 3] = hold
    with pytest.raises(TablesError, match="hold"):
        CdfTables(**changed, shape=SHAPE)
