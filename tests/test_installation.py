"""A broken installation is one line that names what is there, what is needed, and the command that mends it."""

from __future__ import annotations

import site
import sys
from pathlib import Path

import pytest

from lexalcm import installation
from lexalcm.errors import SetupError
from lexalcm.installation import DOCTOR, bundled_libsndfile, check_setup, link_libsndfile


def claim(folder: Path, name: str, version: str) -> None:
    """Puts an installed distribution of that name and version into ``folder``."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_this_environment_passes() -> None:
    check_setup()


def test_another_torch_is_named_with_the_one_needed_and_the_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(tmp_path, "torch", "2.8.0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SetupError) as caught:
        check_setup()
    text = str(caught.value)
    assert "torch 2.8.0 is installed" in text and "torch==2.9" in text and "pip install" in text
    assert text.splitlines()[1:] == [DOCTOR]


def test_a_build_of_the_same_release_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = str(installation.requirement("torch", of="fairseq2n")).removeprefix("==")
    claim(tmp_path, "torch", f"{wanted}+cpu")
    monkeypatch.syspath_prepend(tmp_path)
    check_setup()


def test_what_an_interrupted_installation_leaves_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch-2.9.1.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SetupError, match="torch is not installed. Run: pip install 'torch==2.9"):
        check_setup()


def test_a_version_that_is_none_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim(tmp_path, "torch", "of-yesterday")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SetupError, match="torch of-yesterday is installed, but"):
        check_setup()


def test_a_missing_packaging_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    with pytest.raises(SetupError, match="packaging cannot be imported: .* Run: pip install"):
        check_setup()


def test_a_missing_libsndfile_names_the_places_searched_and_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "_loads", lambda library: False)
    with pytest.raises(SetupError) as caught:
        check_setup()
    text = str(caught.value)
    assert "libsndfile" in text and str(Path(site.getsitepackages()[0]).parent.parent) in text
    assert text.count("Run: ") == 1 and text.splitlines()[1:] == [DOCTOR]


def test_the_bundled_libsndfile_is_linked_where_fairseq2_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled = bundled_libsndfile()
    if bundled is None:
        pytest.skip("the soundfile package has no library for this machine")
    packages = tmp_path / "lib" / "python3" / "site-packages"
    packages.mkdir(parents=True)
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(packages)])
    monkeypatch.setattr(installation, "_loads", lambda library: False)
    link = link_libsndfile()
    assert link is not None and link.parent == tmp_path / "lib" and link.resolve() == bundled.resolve()
