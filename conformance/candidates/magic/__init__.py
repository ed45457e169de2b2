"""The magic zoo: defects behind a number that nobody draws, a particular content, or two fields that fit one another.

They measure what finds arguments by solving. They are no part of the zoo that `strength` measures the suite by, and
none of their numbers is in a domain. Each was written before anything had searched for it.
"""
