"""The dashboard: a WSGI application, and a server of the standard library's for it."""
