from __future__ import annotations

import numpy as np
import pytest

from lexalcm.pipelines.quantile_sketch import QuantileSketch

QUARTILES = (0.25, 0.5, 0.75)
N = 40_000


def columns(seed: int = 0) -> dict[str, np.ndarray]:
    r = np.random.default_rng(seed)
    return {
        "gaussian": r.normal(0.01, 0.05, N),
        "far from zero": r.normal(500.0, 0.25, N),
        "heavy tails": r.standard_cauchy(N),
        "very heavy tails": r.standard_t(0.4, N) * 1e-3,
        "lopsided": r.lognormal(0.0, 2.5, N),
        "two far modes": np.where(r.random(N) < 0.5, -1.0, 1.0) + 1e-3 * r.normal(size=N),
        "few values": r.integers(-3, 4, N).astype(float),
        "half of it one value": np.where(r.random(N) < 0.45, 0.0, r.normal(size=N)),
    }


def sketched(x: np.ndarray, *, buffer_rows: int, chunk: int = 777) -> QuantileSketch:
    sketch = QuantileSketch(x.shape[1], buffer_rows=buffer_rows)
    for start in range(0, len(x), chunk):
        sketch.add(x[start : start + chunk])
    return sketch


def test_data_that_fits_the_buffer_has_exact_quantiles() -> None:
    x = np.stack(list(columns().values()), axis=1).astype(np.float32)
    sketch = sketched(x, buffer_rows=N)
    values, errors = sketch.quantiles(QUARTILES)
    assert sketch.exact and sketch.num_rows == N
    assert np.array_equal(values, np.quantile(x.astype(np.float64), QUARTILES, axis=0))
    assert not errors.any()


@pytest.mark.parametrize("buffer_rows", [500, 4000])
@pytest.mark.parametrize("name", columns())
def test_error_is_below_one_percent_of_the_range_and_below_the_stated_bound(name: str, buffer_rows: int) -> None:
    x = columns()[name].astype(np.float32)[:, None]
    sketch = sketched(x, buffer_rows=buffer_rows)
    values, bounds = sketch.quantiles(QUARTILES)
    truth = np.quantile(x.astype(np.float64), QUARTILES, axis=0)
    spread = truth[2, 0] - truth[0, 0]
    assert not sketch.exact
    assert np.all(np.abs(values - truth) <= bounds + 1e-12)
    assert abs(values[1, 0] - truth[1, 0]) <= 0.01 * spread
    assert abs((values[2, 0] - values[0, 0]) - spread) <= 0.01 * spread


def test_first_rows_need_not_be_typical() -> None:
    x = np.random.default_rng(1).normal(size=(N, 1)).astype(np.float32)
    x[:2000] = 0.5 * x[:2000] - 2.0
    values, bounds = sketched(x, buffer_rows=1000).quantiles(QUARTILES)
    truth = np.quantile(x.astype(np.float64), QUARTILES, axis=0)
    assert np.all(np.abs(values - truth) <= bounds)
    assert np.all(np.abs(values - truth) <= 0.01 * (truth[2] - truth[0]))


def test_dimension_that_stood_still_at_first_is_still_measured() -> None:
    x = np.random.default_rng(2).normal(size=(N, 5)).astype(np.float32)
    x[:1000, 0] = 0.25
    values, _ = sketched(x, buffer_rows=1000).quantiles(QUARTILES)
    truth = np.quantile(x.astype(np.float64), QUARTILES, axis=0)
    assert np.all(np.abs(values - truth) <= 0.01 * (truth[2] - truth[0]))


def test_quantile_beyond_the_last_bin_has_an_infinite_bound() -> None:
    x = np.concatenate([np.random.default_rng(3).normal(size=1000), np.full(9000, 1e9)]).astype(np.float32)[:, None]
    _, bounds = sketched(x, buffer_rows=1000).quantiles(QUARTILES)
    assert np.isinf(bounds).all()


def test_result_does_not_depend_on_chunks() -> None:
    x = np.stack([columns()[name] for name in ("gaussian", "few values")], axis=1).astype(np.float16)
    one, other = (sketched(x, buffer_rows=1000, chunk=c).quantiles(QUARTILES)[0] for c in (1, 4096))
    assert np.array_equal(one, other)


def test_memory_does_not_grow_with_rows() -> None:
    sketch = QuantileSketch(3, buffer_rows=100)
    sizes = set()
    for _ in range(5):
        sketch.add(np.random.default_rng(4).normal(size=(1000, 3)))
        sizes.add(sketch._buffer.nbytes + sketch._counts.nbytes)
    assert len(sizes) == 1
