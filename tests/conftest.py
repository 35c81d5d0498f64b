"""Makes tests/ importable, so that test modules can share small builders."""

from hypothesis import settings

# No test asserts wall-clock time: a busy machine is not a failure.
settings.register_profile("hanse", deadline=None)
settings.load_profile("hanse")
