"""docs/metrics.md says what the code registers."""

import pytest

from tests.support.metric_catalogue import generator


def test_the_page_is_what_the_code_says() -> None:
    catalogue = generator()
    assert catalogue.PAGE.read_text(encoding="utf-8") == catalogue.page(), "run `make metrics`"


def test_a_label_that_nothing_bounds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = generator()
    monkeypatch.delitem(catalogue.BOUNDS, ("mien_cloud_dropped", "reason"))
    with pytest.raises(SystemExit, match="mien_cloud_dropped has the label reason"):
        catalogue.page()


def test_nothing_is_bounded_that_is_no_label() -> None:
    catalogue = generator()
    labels = {
        (family.name, label)
        for _, _, registry in catalogue.services()
        for family in catalogue.families(registry)
        for label in catalogue.label_names(registry, family)
    }
    assert set(catalogue.BOUNDS) == labels


def test_values_that_a_service_shows_from_its_start_are_within_their_bounds() -> None:
    catalogue = generator()
    seen = set()
    for _, _, registry in catalogue.services():
        for family in catalogue.families(registry):
            for sample in family.samples:
                for label in catalogue.label_names(registry, family):
                    values = catalogue.bound(family.name, label)
                    if not isinstance(values, str):
                        assert sample.labels[label] in values
                        seen.add(family.name)
    assert {"mien_cloud_dropped", "mien_edge_dropped", "mien_edge_fleet_configs"} <= seen
