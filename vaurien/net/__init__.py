"""The data path: the only room that knows gevent's loop.

``server`` accepts, ``dial`` connects to the backend, ``connection`` pumps the bytes, ``handoff``
lends the sockets to socket handlers, ``linger`` ends politely, ``spin`` keeps the loop awake.
"""
