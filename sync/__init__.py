"""Standpipe: verified AT Protocol sync inside the app's own PostgreSQL."""

__version__ = "0.1.0"
