"""Comparing a run with the committed reference, or with another run: facts, tolerances, tables, claims, tokens."""
