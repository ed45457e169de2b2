"""The C ABI: one header for each subsystem, and what binds a library to the suite by it.

`S.h` is the one definition. cffi reads it; the ports say what each argument is in Python; nothing is written by hand
for a single call.
"""
