"""README's example of growth, on a machine that may be busy with other tests, so that looks take long."""

import runpy
import sys

from kerasmemwatch.watch.search import allowance

allowance._LOOK_S = 60.0
runpy.run_path(sys.argv[1], run_name="__main__")
