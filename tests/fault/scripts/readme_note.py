"""README's note, on a machine that may be busy with other tests: the analysis may take longer than a user waits."""

import runpy
import sys

from kerasmemwatch.watch import last_words

last_words._STEPS_S = last_words._PAGE_S = 60
runpy.run_path(sys.argv[1], run_name="__main__")
