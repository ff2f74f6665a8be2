"""The AT Protocol as pure functions: bytes in, values out.

Nothing here opens a socket, reads a clock or touches a database, so every rule of the
protocol can be tested with a byte string. Upstream bytes are hostile until a function of
this package has accepted them; what it refuses raises a `ProtocolError` that names the rule.
"""
