"""Protocols: framers that tell where exchanges begin. One file each; pure."""
