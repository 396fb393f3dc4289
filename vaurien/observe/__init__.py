"""What observers get (`events`), and what is made of it: the log, the watch on the loop."""
