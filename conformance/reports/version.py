"""Which suite says so."""

SUITE = "conformance 0.1.0"
"""Name and version in reports and in `--version`; the version is pyproject's."""
