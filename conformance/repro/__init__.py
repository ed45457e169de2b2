"""Traces as programs that check themselves: `conformance repro`."""
