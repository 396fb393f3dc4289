"""The command line: ``vaurien``."""
