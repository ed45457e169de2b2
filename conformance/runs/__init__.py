"""Runs: the units that a request asks for, what one unit does, where they are done, what they come to."""
