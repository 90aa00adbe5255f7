"""Where brokers, result backends and rate limiters keep things: connections, files, and waiting.

Knows how to talk to a server or a file. Does not know messages, results or limits: those
are laid out in the plug-ins, which never import each other and share what is here.
"""
