"""The price book: every entry traceable, every mistake named, all of them at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from zerosearch.artifacts import REPO
from zerosearch.errors import ConfigError
from zerosearch.prices import UNITS, PriceBook, Rates

BOOK = REPO / "data" / "prices.yaml"
GOOD = "a100:\n  value: 17.70\n  per: 12\n  unit: USD/GPU-hour\n  date: 2025-05-07\n  source: somewhere\n"


def _book(folder: Path, text: str) -> PriceBook:
    path = folder / "prices.yaml"
    path.write_text(text, encoding="utf-8")
    return PriceBook.load(path)


def test_every_shipped_price_has_value_unit_date_and_source():
    book = PriceBook.load(BOOK)
    for price in book.prices.values():
        assert price.each > 0 and price.unit in UNITS and price.source and 2020 <= price.date.year
    assert len(book.table()) == len(book.prices) >= 10


def test_default_rates_name_shipped_prices():
    book, rates = PriceBook.load(BOOK), Rates()
    assert book.each(rates.search, "USD/search") == 275 / 30_000
    assert book.each(rates.gpu, "USD/GPU-hour") == pytest.approx(1.475)
    assert book.each(rates.core, "USD/core-hour") == 0.0816 / 2
    assert book.each(rates.gpu_power, "W/GPU") == 400


def test_a_price_is_value_over_per(tmp_path):
    assert _book(tmp_path, GOOD).each("a100", "USD/GPU-hour") == pytest.approx(1.475)


@pytest.mark.parametrize(("change", "message"), [
    (("  date: 2025-05-07\n", ""), "date is missing"),
    (("  source: somewhere\n", ""), "source is missing"),
    (("17.70", "1e-6"), "must be a number such as 1.0e-6"),
    (("17.70", "-1.0"), "not negative"),
    (("17.70", ".inf"), "finite"),
    (("17.70", "true"), "must be a number"),
    (("per: 12", "per: 0"), "per: above 0"),
    (("USD/GPU-hour", "EUR/hour"), "unit must be one of"),
    (("2025-05-07", "last May"), "YYYY-MM-DD"),
    (("source:", "sauce:"), "unknown field 'sauce'"),
])
def test_a_bad_entry_is_refused_with_its_name(tmp_path, change, message):
    with pytest.raises(ConfigError, match="a100") as error:
        _book(tmp_path, GOOD.replace(*change))
    assert message in str(error.value)


def test_all_bad_entries_are_reported_at_once(tmp_path):
    text = GOOD.replace("17.70", "x") + GOOD.replace("a100", "h200").replace("12", "0") + "nothing: 3\n"
    with pytest.raises(ConfigError) as error:
        _book(tmp_path, text)
    assert all(name in str(error.value) for name in ("a100", "h200", "nothing"))


@pytest.mark.parametrize("text", ["", "- a list\n", "a: [unclosed\n"])
def test_a_file_that_is_no_price_book_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match="expected"):
        _book(tmp_path, text)


def test_a_missing_file_names_the_command_that_restores_it(tmp_path):
    with pytest.raises(ConfigError, match="git checkout data/prices.yaml"):
        PriceBook.load(tmp_path / "none.yaml")


def test_an_unknown_price_names_the_nearest_and_a_wrong_unit_is_refused(tmp_path):
    book = _book(tmp_path, GOOD)
    with pytest.raises(ConfigError, match="did you mean 'a100'"):
        book.each("a10", "USD/GPU-hour")
    with pytest.raises(ConfigError, match="expected a price in USD/search, found USD/GPU-hour"):
        book.each("a100", "USD/search")
