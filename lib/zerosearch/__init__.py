"""ZeroSearch Workbook: teach a language model to search without paying a search engine while it trains."""

__version__ = "0.1.0"
