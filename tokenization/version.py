"""The version of the whole distribution: all five packages are released together.

While it begins with 0: the middle number grows where a command, a setting, a name of the public API
or what a build writes changes its meaning; the last one where nothing of that does. CHANGELOG.md
says what changed.
"""

__version__ = "0.2.0"
