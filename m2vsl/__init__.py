"""M2VSL: which pixels make the sound? Models, losses and metrics of visual sound localisation.

Import the module that defines a name (``from m2vsl.losses import mmc``); this front door holds the version alone, so
that importing the package costs nothing.
"""

__version__ = "0.1.0"
