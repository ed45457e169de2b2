"""What the specification allows: immutable states and one pure function per operation."""
