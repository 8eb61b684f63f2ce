from __future__ import annotations

from collections.abc import Iterator
from statistics import NormalDist
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.preprocessing import RobustScaler, StandardScaler

from lexalcm.errors import ConfigError, DataError
from lexalcm.models.normalizer.config import NormalizationMethod, NormalizerConfig
from lexalcm.pipelines import fit_normalizer as module
from lexalcm.pipelines.fit_normalizer import fit, fit_normalizer
from lexalcm.pipelines.fit_rule import fit_rule, reference_rule


def data(num_rows: int = 5000, dim: int = 6, seed: int = 0) -> np.ndarray:
    r = np.random.default_rng(seed)
    return (r.normal(size=(num_rows, dim)) * np.linspace(0.5, 2.0, dim) + np.linspace(-1.0, 3.0, dim)).astype(
        np.float32
    )


def chunked(x: np.ndarray, size: int = 64) -> Iterator[np.ndarray]:
    return (x[i : i + size] for i in range(0, len(x), size))


def test_standard_is_mean_and_population_deviation() -> None:
    x = data() + np.float32(1000.0)
    result = fit(chunked(x), "standard")
    wide = x.astype(np.float64)
    np.testing.assert_allclose(result.center, wide.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(result.scale, wide.std(axis=0), rtol=1e-6)
    assert result.num_concepts == len(x) and result.dead_dims == () and result.error_bound == 0.0


def test_robust_is_median_and_scaled_interquartile_range() -> None:
    x = data()
    result = fit(chunked(x), "robust")
    low, median, high = np.quantile(x.astype(np.float64), (0.25, 0.5, 0.75), axis=0)
    np.testing.assert_allclose(result.center, median, rtol=1e-6)
    np.testing.assert_allclose(result.scale, 0.7413 * (high - low), rtol=1e-6)
    assert result.center.dtype == result.scale.dtype == np.float32
    assert result.error_bound == 0.0


def test_sketched_fit_records_a_bound_it_keeps() -> None:
    x = data(20_000)
    exact, sketched = fit(chunked(x), "robust"), fit(chunked(x), "robust", buffer_rows=1000)
    assert 0.0 < sketched.error_bound <= 0.01
    assert np.all(np.abs(sketched.center - exact.center) <= sketched.error_bound * exact.scale / 0.7413)
    assert np.all(np.abs(sketched.scale / exact.scale - 1.0) <= sketched.error_bound)


@pytest.mark.parametrize("buffer_rows", [None, 500])
@pytest.mark.parametrize("method", ["robust", "standard"])
def test_dimensions_without_spread_get_scale_one_and_one_warning(method: str, buffer_rows: int | None) -> None:
    r = np.random.default_rng(0)
    x = r.normal(scale=0.05, size=(4000, 12)).astype(np.float16)
    x[:, 2] = 0.0
    x[:, 5] = np.where(r.random(4000) < 0.5, -6e-8, -0.0)
    x[:, 7] = 0.3 + np.where(r.random(4000) < 0.5, 2.0**-12, 0.0)
    x[:, 9] *= 0.5
    with pytest.warns(UserWarning, match=r"3 of 12 dimensions .* 2, 5, 7\.") as caught:
        result = fit(chunked(x), method, buffer_rows=buffer_rows)
    assert len(caught) == 1
    assert result.dead_dims == (2, 5, 7)
    assert result.scale[[2, 5, 7]].tolist() == [1.0, 1.0, 1.0]
    np.testing.assert_allclose(result.center[[2, 5, 7]], [0.0, 0.0, 0.3], atol=5e-4)
    live = np.setdiff1d(np.arange(12), result.dead_dims)
    assert np.all(result.scale[live] < 0.1) and np.all(result.scale[live] > 0.01)


def test_threshold_of_a_dead_dimension_is_a_thousandth_of_the_others() -> None:
    x = data(4000, 8)
    spread = x.std(axis=0)
    x[:, 0] *= 2e-3 * np.quantile(spread, 0.9) / spread[0]
    assert fit([x], "standard").dead_dims == ()
    x[:, 0] *= 0.4
    with pytest.warns(UserWarning, match="no spread"):
        assert fit([x], "standard").dead_dims == (0,)


def test_large_dimensions_do_not_make_the_others_dead() -> None:
    x = data(4000, 40)
    x[:, 3] *= 1e4
    assert fit([x]).dead_dims == ()


def test_three_rows_are_too_few_and_a_warning_says_so() -> None:
    with pytest.warns(UserWarning, match="Only 3 concepts"):
        fit([data(3)])


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([], "no concepts"),
        ([np.zeros((0, 4), np.float32)], "no concepts"),
        ([np.ones((2, 4), np.float32), np.ones((2, 5), np.float32)], "4 dimensions .* some have 5"),
        ([np.array([[1.0, np.nan]], np.float32)], "NaN or infinity"),
        ([np.array([[1.0, np.inf]], np.float16)], "NaN or infinity"),
    ],
)
def test_data_that_cannot_be_fitted_is_an_error(chunks: list[np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit(chunks)


def test_unknown_method_offers_the_near_match() -> None:
    with pytest.raises(ConfigError, match='Did you mean "robust"'):
        fit([data()], "robusst")


def test_data_unlike_its_beginning_warns_or_fails_but_is_never_silently_wrong() -> None:
    r = np.random.default_rng(0)
    start = r.normal(size=(1000, 2)).astype(np.float32)
    with pytest.warns(UserWarning, match="Shuffle the files"):
        result = fit([start, *[40.0 + start] * 20], buffer_rows=1000)
    assert result.error_bound > 0.01
    with pytest.raises(DataError, match="far outside"):
        fit([start, *[1e6 + start] * 20], buffer_rows=1000)


def bounds(x: np.ndarray, center: np.ndarray, scale: np.ndarray, share: float) -> np.ndarray:
    return np.quantile((x.astype(np.float64) - center) / scale, (share, 1 - share), axis=0)


@pytest.mark.parametrize("buffer_rows", [None, 1000])
@pytest.mark.parametrize("method", ["robust", "standard", "range", "gaussian_robust", "meta_compatible"])
def test_clip_bounds_are_quantiles_of_the_normalised_data(method: str, buffer_rows: int | None) -> None:
    x = data(20_000)
    result = fit(chunked(x), fit_rule(method, clip_proba=0.01), buffer_rows=buffer_rows)
    plain = fit(chunked(x), method, buffer_rows=buffer_rows)
    assert plain.clip_min is None and plain.clip_max is None
    assert np.array_equal(plain.center, result.center) and np.array_equal(plain.scale, result.scale)
    found = np.stack([result.clip_min, result.clip_max])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, bounds(x, result.center, result.scale, 0.01), rtol=0.02 if buffer_rows else 1e-5)
    assert (result.error_bound == 0.0) is (buffer_rows is None)


@pytest.mark.parametrize(
    ("method", "divisor"), [("range", 1.0), ("gaussian_robust", NormalDist().inv_cdf(0.9) - NormalDist().inv_cdf(0.02))]
)
def test_quantiles_are_percentages_and_any_two_ascending_ones(method: str, divisor: float) -> None:
    x = data()
    result = fit(chunked(x), fit_rule(method, quantiles=(2.0, 90.0)))
    low, median, high = np.percentile(x.astype(np.float64), (2.0, 50.0, 90.0), axis=0)
    np.testing.assert_allclose(result.center, median, rtol=1e-6)
    np.testing.assert_allclose(result.scale, (high - low) / divisor, rtol=1e-6)


def test_robust_and_gaussian_robust_agree_on_quartiles() -> None:
    np.testing.assert_allclose(fit([data()], "robust").scale, fit([data()], "gaussian_robust").scale, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_transform_is_taken_before_the_fit(dtype: type) -> None:
    x = data(4000, 6).astype(dtype)
    spectrum = np.fft.rfft(x.astype(np.float64))
    frequencies = np.concatenate([spectrum.real, spectrum.imag[:, 1:-1]], axis=1)
    result = fit(chunked(x), fit_rule("standard", with_fft=True))
    np.testing.assert_allclose(result.center, frequencies.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result.scale, frequencies.std(axis=0), rtol=1e-4)
    assert result.statistics.with_fft is True
    with pytest.raises(DataError, match="even dimension, but they have 5"):
        fit([data(10, 5)], fit_rule("standard", with_fft=True))


@pytest.mark.filterwarnings("ignore:.*have no spread")
@pytest.mark.parametrize("method", ["standard", "robust", "gaussian_robust"])
@pytest.mark.parametrize("quantiles", [(0.25, 0.75), (25.0, 75.0), (1.0, 80.0)])
def test_the_references_configurations_give_what_scikit_learn_gives_it(
    method: NormalizationMethod, quantiles: tuple[float, float]
) -> None:
    x = data(3000, 8).astype(np.float32)
    x[:, 1] = 0.3
    x[:, 2] = 0.3 + np.where(np.arange(3000) % 3, 1e-8, 0.0)
    x[:, 3] *= 1e-17
    x[:, 4] *= 1e-5
    config = NormalizerConfig(quantile_min=quantiles[0], quantile_max=quantiles[1], normalization_method=method)
    if method == "standard":
        scaler = StandardScaler().fit(x)
        center, scale = scaler.mean_, scaler.scale_
    else:
        scaler = RobustScaler(quantile_range=quantiles, unit_variance=method == "gaussian_robust").fit(x)
        center, scale = scaler.center_, scaler.scale_
    result = fit(chunked(x), reference_rule(config))
    np.testing.assert_allclose(result.center, center, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(result.scale, scale, rtol=1e-5)
    assert {1, 2} <= set(result.dead_dims) and result.method == "meta_compatible"


@pytest.mark.filterwarnings("ignore:.*have no spread")
def test_a_deviation_within_its_rounding_error_is_none_for_scikit_learn() -> None:
    x = 1000.0 + np.random.default_rng(0).normal(size=(3000, 4)) * [1e-12, 1e-10, 1e-7, 1.0]
    expected = StandardScaler().fit(x).scale_
    assert expected[0] == 1.0 and expected[2] < 1e-6
    rule = reference_rule(NormalizerConfig(normalization_method="standard"))
    np.testing.assert_allclose(fit(chunked(x), rule).scale, expected, rtol=1e-2)


def test_a_sketch_of_near_tails_tells_its_error_without_blaming_the_data(recwarn: pytest.WarningsRecorder) -> None:
    x = data(20_000)
    exact, sketched = fit(chunked(x), "meta_compatible"), fit(chunked(x), "meta_compatible", buffer_rows=1000)
    assert 0.0 < sketched.error_bound < 0.03 and not recwarn.list
    assert np.all(np.abs(sketched.scale / exact.scale - 1.0) <= sketched.error_bound)


def test_tails_far_outside_of_what_the_sketch_saw_are_an_error() -> None:
    x = data(3000, 2)
    x[2500:, 0] = 1e9
    with pytest.raises(DataError, match=r"quantiles of 1 dimensions \(0\)"):
        fit(chunked(x), fit_rule("robust", clip_proba=0.01), buffer_rows=1000)


def test_documents_are_counted_with_their_files() -> None:
    x = data(3000)
    documents = [
        SimpleNamespace(concepts=c, file=f"part{i % 2}.parquet") for i, c in enumerate(np.split(x, [7, 7, 1500]))
    ]
    asked, seen = [], []

    class Dataset:
        def documents(self, split: str | None) -> Iterator[SimpleNamespace]:
            asked.append(split)
            return iter(documents)

    result = fit_normalizer(Dataset(), "train", progress=lambda *counts: seen.append(counts))
    assert asked == ["train"]
    assert (result.num_documents, result.num_concepts) == (4, 3000)
    assert result.files == ("part0.parquet", "part1.parquet")
    np.testing.assert_array_equal(result.center, fit([x]).center)


def test_documents_are_joined_into_chunks_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [SimpleNamespace(concepts=x, file="a") for x in chunked(data(30_000), size=7)]
    sizes: list[int] = []

    def record(chunks: Iterator[np.ndarray], method: str) -> module.NormalizerFit:
        return fit((sizes.append(len(chunk)) or chunk for chunk in chunks), method)

    monkeypatch.setattr(module, "fit", record)
    fit_normalizer(SimpleNamespace(documents=lambda split: iter(documents)))
    assert sum(sizes) == 30_000
    assert len(sizes) == 4 and max(sizes) < 8192 + 7
