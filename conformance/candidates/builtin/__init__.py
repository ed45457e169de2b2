"""The shipped candidates, one module per subsystem."""
