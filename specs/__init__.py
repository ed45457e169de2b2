"""What the five subsystems must do: clauses, profiles and the ports candidates implement."""
