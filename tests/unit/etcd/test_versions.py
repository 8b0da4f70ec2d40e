"""Releases of etcd that lose data are refused; those in which grants do not hold are told."""

from __future__ import annotations

import pytest

from moorline.errors import Refused
from moorline.stores.etcd.versions import warnings_of


@pytest.mark.parametrize("version", ["3.5.0", "3.5.1", "3.5.2", "3.5.2+git", "3.3.27", "2.3.8"])
def test_what_loses_data_or_is_too_old_is_refused(version: str) -> None:
    with pytest.raises(Refused, match="etcd") as refused:
        warnings_of(version, "https://etcd1:2379")
    assert "upgrade" in refused.value.hint


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("3.4.20", ["differ", "all entries:", "full"]),
        ("3.4.23", ["all entries:", "full"]),
        ("3.4.45", ["all entries:", "full"]),
        ("3.5.5", ["differ", "all entries:", "full"]),
        ("3.5.16", ["all entries:", "full"]),
        ("3.5.33", ["full"]),
        ("3.6.13", ["all entries:"]),
        ("3.6.14", []),
        ("3.7.0", ["all entries:"]),
        ("3.7.1-rc.0", []),
        ("3.8.0", []),
        ("4.0.0", []),
        ("", []),
        ("new", ["version"]),
    ],
)
def test_what_is_known_is_told(version: str, words: list[str]) -> None:
    told = warnings_of(version, "https://etcd1:2379")
    assert len(told) == len(words)
    for warning, word in zip(told, words, strict=True):
        assert word in warning
        assert "https://etcd1:2379" in warning
