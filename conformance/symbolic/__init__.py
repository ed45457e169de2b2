"""Looking for arguments by solving for them: symbolic ints and bytes, what sees them through, and what explores.

An int that knows how it was computed notes each comparison that is made of it; z3, CrossHair's solver, finds values
for which a comparison ends otherwise, and CrossHair's tracer sees ints through builtins that would forget.
What is found is a trace like any other, and judged like any other.
"""
