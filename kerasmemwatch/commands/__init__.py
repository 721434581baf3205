"""Commands that do more than show a recording, called by ``cli``.

``cli`` parses the command line. ``run.launch`` splits off the script's arguments; ``demo`` and ``launch`` print.
"""
