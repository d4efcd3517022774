"""Processes that are killed, disks that fail: slow tests, and what quick ones share with them."""
