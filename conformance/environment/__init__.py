"""The simulated world around a candidate: one door for its calls, and fakes behind it."""
