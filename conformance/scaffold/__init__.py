"""Candidates to begin with, written from the ports: `conformance new`."""
