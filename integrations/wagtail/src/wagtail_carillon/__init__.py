"""Live editing for Wagtail: every editor sees at once what the others do, over any number of instances.

Events carry ids, types and counts, never titles, names or text: a page asks Wagtail for the rest, with its own rights.
"""

__version__ = "0.2.0"
