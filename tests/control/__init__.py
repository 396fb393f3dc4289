"""The control API: its operations, its safety, its bad days."""
