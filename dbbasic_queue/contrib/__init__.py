"""Doors for other people's programs; each needs the package that it is named after."""
