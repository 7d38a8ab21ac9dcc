"""The command ``rare-unet``. The modules here import the standard library alone, so that ``--help`` is quick."""
