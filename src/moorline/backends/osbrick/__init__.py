"""Block storage that os-brick connects, Veritas HyperScale among it.

``backend`` is the recipe, ``hyperscale`` and ``protocols`` its kinds; ``child`` runs os-brick
in a process of its own; ``connector`` is the os-brick connector for HyperScale.
"""
