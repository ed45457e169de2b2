"""Implementations under test: shipped ones, deliberately wrong ones, and how others are loaded."""
