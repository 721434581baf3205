"""``kerasmemwatch run``: a user's script with every fit watched.

Runs in the script's own process, so nothing here may change what the script sees.
"""
