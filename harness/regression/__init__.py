"""A run against a committed one."""
