"""Commands with work of their own, behind ``cli``.

``cli`` parses and prints; nothing here parses arguments.
"""
