"""An executable specification and conformance suite for five Linux-virtualization subsystems."""
