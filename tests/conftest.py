"""Makes tests/ importable, so that test modules can share small builders."""
