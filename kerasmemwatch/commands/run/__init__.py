"""``kerasmemwatch run``: a script of the user's with every fit watched.

Runs in the script's own process, so nothing here may change what the script sees.
"""
