"""Commands that do more than show a recording, called by ``cli``.

Nothing here parses the command line, which ``cli`` does, but ``run.launch``, which splits off the script's arguments.
"""
