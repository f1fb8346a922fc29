"""Sockets: listening, TLS, limits on connections, coalesced writes, counted traffic."""
