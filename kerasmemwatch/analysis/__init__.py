"""Pure functions from recorded values to findings.

Nothing here renders, reads a file or imports a framework; words belong here only where text, HTML and tab share them.
"""
