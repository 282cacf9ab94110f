"""Both ends of a split as processes of their own.

The core (messages and sessions) does no I/O: frames go in and come out as bytes, and the time is
told. Shells around it own sockets, clocks and threads.
"""
