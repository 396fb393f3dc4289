"""The faults of Toxiproxy that Vaurien proves it does not have: R1 to R15 of rivals.md."""
