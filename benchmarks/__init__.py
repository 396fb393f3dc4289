"""Vaurien against its peers: requests, connections, bulk, latency and memory, in one run."""
