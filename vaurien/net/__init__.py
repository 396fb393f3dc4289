"""The only room that knows gevent's loop: sides, listeners, dials, alarms, and the loop itself."""
