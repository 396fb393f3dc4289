"""Open exchanges, the handlers picked for them, and the order of replies. All of it is pure."""
