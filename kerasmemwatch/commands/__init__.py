"""Commands that do more than show a recording, called by ``cli``.

``cli`` parses the command line. Here only ``run.launch`` reads it, to split off the script's arguments.
"""
