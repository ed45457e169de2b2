"""The command line: `main` has the commands, each of the others does what one of them asks for."""
