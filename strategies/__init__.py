"""What may happen: the values of every operation's fields, the faults, and the small scopes."""
