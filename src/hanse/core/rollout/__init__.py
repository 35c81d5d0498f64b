"""Rollouts: the signed plan, and the machine that carries out one region's part of it."""
