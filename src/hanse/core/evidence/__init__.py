"""Sequential evidence: is a release worse, proven good enough, or not yet known?"""
