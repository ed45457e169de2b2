"""A Debian kernel in QEMU, its packages, its memory seen from outside, and a channel for system calls into it."""
