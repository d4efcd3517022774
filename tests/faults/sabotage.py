"""Safeguards that can be taken away, to show that the campaign notices."""

WITHOUT = {}
