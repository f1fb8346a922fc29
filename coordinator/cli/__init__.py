"""The subcommands of ``ftte``, by whom they are for."""
