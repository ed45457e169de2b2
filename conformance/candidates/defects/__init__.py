"""The zoo: one deliberately wrong candidate per known defect."""
