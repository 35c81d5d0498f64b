"""Makes tests/ importable, so that test modules can share small builders."""

import os

from hypothesis import settings

# No test asserts wall-clock time: a busy machine is not a failure. A change is judged by the same
# examples each time; others are drawn in every run by hand, and in campaigns.
settings.register_profile("hanse", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("hanse")
