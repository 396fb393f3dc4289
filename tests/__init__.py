"""The tests; they mirror ``vaurien/``."""
