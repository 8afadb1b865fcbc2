"""Measure, and compare with what others ship."""
