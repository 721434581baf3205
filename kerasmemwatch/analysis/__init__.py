"""Pure functions from recorded values to findings.

Nothing here renders, reads a file or imports a framework. Wording is here only where text, HTML and the tab share it.
"""
