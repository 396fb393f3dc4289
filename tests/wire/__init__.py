"""Recorded talk of Toxiproxy's API: the scripts, the recorder, what was said, and the replay."""
