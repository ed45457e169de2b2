"""The conversation between the suite and a candidate that is a process: JSON, one message a line."""
