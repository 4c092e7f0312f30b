"""Stands in for `modelscope`. For tests of the app of preset `pipeline`."""
