"""Version number, in a module of its own so that setup.cfg reads it without importing the package."""

__version__ = "0.1.0"
