"""The cases, in the order in which they run."""

from . import cached, caches, contexts, copying, growth, large, many, packages, pulls, steps

CASES = [*cached.CASES, *steps.CASES, *copying.CASES, *large.CASES, *pulls.CASES, *packages.CASES, *caches.CASES, *contexts.CASES,
         *growth.CASES, *many.CASES]
