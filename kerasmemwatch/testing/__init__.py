"""For other projects' tests: assertions that memory does not grow.

The pytest marker is in ``kerasmemwatch_pytest`` beside the package, because pytest loads that wherever it is installed.
Nothing here loads a framework.
"""

from kerasmemwatch.testing.assertions import assert_no_growth, no_growth

__all__ = ["assert_no_growth", "no_growth"]
