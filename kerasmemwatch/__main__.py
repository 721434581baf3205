"""``python -m kerasmemwatch``."""

import sys

from kerasmemwatch.cli import main

sys.exit(main())
